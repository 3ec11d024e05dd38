"""Candidates that were cut from the teacher begin nearer to its outputs."""

import json
from types import SimpleNamespace

import pytest
import torch

import kdtool
from kdtool.compression import candidates, mending, planning
from kdtool.compression.candidates import Candidate
from kdtool.compression.keeping import keep, kept
from kdtool.models.checkpoint import read
from kdtool.surgery import halve_widths
from kdtool.training.options import Training

OPTIONS = {"max_macs": "0.3x", "quantised": False, "epochs": 1, "trials": 1, "lr": 3e-3}


def beginnings(teacher, output, monkeypatch, **options):
    """Compress, and return the candidates' networks before their training, and the plan that the run kept."""
    found = {}

    def watched(run, candidate):
        keep(run, candidate)
        found[candidate.name] = kept(run, candidate.name)

    monkeypatch.setattr(planning, "keep", watched)
    student = kdtool.compress(teacher, output=output, **{**OPTIONS, **options})
    about = json.loads((output.with_suffix(".run") / planning.PROPOSALS).read_text())
    return found, about["candidates"], student


def test_a_pruned_candidate_begins_nearer_to_the_teacher(teacher_path, digits, tmp_path, monkeypatch, capsys):
    repaired, rows, student = beginnings(teacher_path, tmp_path / "a.pt", monkeypatch, candidates=("filter-l1",))
    assert (
        "the weights of 1 candidate that was cut from the teacher are corrected by least squares"
        in capsys.readouterr().err
    )
    assert [row["repair"] for row in rows] == ["least-squares"]
    assert student.history[-1]["candidate"]["repair"] == "least-squares"
    monkeypatch.setattr(planning, "mend", lambda *arguments: None)
    plain, rows, _ = beginnings(teacher_path, tmp_path / "b.pt", monkeypatch, candidates=("filter-l1",))
    assert [row["repair"] for row in rows] == [""]
    assert repaired.keys() == plain.keys()
    images = torch.cat([images for _, images, _ in digits.val.batches(256)])
    with torch.no_grad():
        expected = read(teacher_path).module(images)
        far, near = (
            float((network.module(images) - expected).square().mean())
            for (network,) in (plain.values(), repaired.values())
        )
    assert near < 0.6 * far


def test_fresh_weights_have_nothing_to_correct(teacher_path):
    teacher = read(teacher_path)
    fresh = Candidate("refiners", "halve", {}, network=halve_widths(teacher.network), inherits=False)
    before = fresh.network
    # Neither the run nor its images are asked for.
    mending.mend(None, teacher.network, [fresh])
    assert fresh.network is before
    assert fresh.repair == ""


def test_weights_that_cannot_be_kept_are_fresh(teacher_path, monkeypatch):
    """Refiners begin with the teacher's weights, if they can."""
    network, run = read(teacher_path).network, SimpleNamespace(training=Training(), data=None)
    for failing, start in ((False, {"init": "inherit"}), (True, {})):
        if failing:
            monkeypatch.setattr(candidates, "refined", refuse)
        found, _ = candidates.ladders(run, network, ["halve"])
        widths, inner = found
        assert widths.inherits == (not failing)
        assert all(step.items() >= start.items() for step in widths.steps)
        # This network has no blocks, and so nothing inside of them.
        assert not inner.inherits
        assert not any("init" in step for step in [*inner.steps, *(widths.steps if failing else [])])


def refuse(*arguments):
    raise kdtool.Error("its channels cannot be followed")


@pytest.mark.slow
def test_a_tenth_of_the_hours_is_for_it(teacher_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mending, "PART", 0.0)
    _, rows, _ = beginnings(teacher_path, tmp_path / "a.pt", monkeypatch, candidates=("filter-l1",), hours=1)
    assert {row["repair"] for row in rows} == {""}
