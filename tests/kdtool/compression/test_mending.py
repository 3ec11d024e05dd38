"""Candidates that were cut from the teacher begin nearer to its outputs."""

import dataclasses
import json

import pytest
import torch

import kdtool
from kdtool.compression import mending, planning
from kdtool.compression.candidate_files import keep, kept
from kdtool.compression.candidates import Candidate, Ladder
from kdtool.compression.costs import Cost
from kdtool.compression.sizing import Sized
from kdtool.models.checkpoint import read
from kdtool.surgery import halve_widths
from kdtool.surgery.slicing.inherited import InheritedNetwork

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


@pytest.mark.parametrize("way", ["kept", "refused", "another structure"])
def test_a_step_of_a_refiner_begins_with_weights_of_the_teacher_if_it_can(teacher_path, way):
    network = read(teacher_path).network
    with torch.no_grad():
        network.module[-1].weight[:2] = 0  # zeros in the weights are no other structure

    def make(options):
        if way == "refused" and options.get("init") == "inherit":
            raise kdtool.Error("its channels cannot be followed")
        ratio = 0.25 if way == "another structure" and "init" in options else 0.5
        return halve_widths(network, ratio=ratio, init=options.get("init", "fresh"))

    fresh = Sized(0, {"ratio": 0.5}, make({"ratio": 0.5}), Cost(1, 1), 1.0)
    ladder = Ladder("refiners", "halve", [], make, inherits=False, keeps=True)
    made = ladder.with_weights(fresh)
    if way == "kept":
        assert isinstance(made.network, InheritedNetwork)
        assert made.options == {"ratio": 0.5, "init": "inherit"}
    else:
        assert made is fresh
    assert dataclasses.replace(ladder, keeps=False).with_weights(fresh) is fresh
    assert ladder.with_weights(None) is None


def test_candidates_of_a_large_network_begin_as_they_were_cut(teacher_path, monkeypatch):
    teacher = read(teacher_path)
    cut = Candidate("refiners", "halve", {}, network=halve_widths(teacher.network, init="inherit"))
    before = cut.network
    monkeypatch.setattr(mending, "MOST_MACS", 1.0)
    mending.mend(None, teacher.network, [cut])
    assert cut.network is before
    assert cut.repair == ""


@pytest.mark.slow
def test_a_tenth_of_the_hours_is_for_it(teacher_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mending, "PART", 0.0)
    _, rows, _ = beginnings(teacher_path, tmp_path / "a.pt", monkeypatch, candidates=("filter-l1",), hours=1)
    assert {row["repair"] for row in rows} == {""}
