"""Whether several processes pay is found by timed steps of both, and the training goes on where it does."""

from __future__ import annotations

import io
import os
import sys

import pytest
import torch

import kdtool
from kdtool.training.foresight import rehearsal, trial
from kdtool.training.foresight.forecast import Cost, Forecast, ForeseenPhase, read_forecast
from kdtool.training.foresight.trial import VARIABLE, Found, Trial, TrialEnded
from kdtool.utils.verbosity import announcing


def forecast(seconds: float) -> Forecast:
    return Forecast([ForeseenPhase("kd", 1, 1)], Cost(seconds, seconds))


def pending(monkeypatch, path, **about) -> Trial:
    made = Trial(**{"file": str(path), "alone": None, "best": None, "last": True, "threads": None, **about})
    monkeypatch.setenv(VARIABLE, made.text())
    assert Trial.pending() == made
    return made


def keeping(monkeypatch) -> io.StringIO:
    """Begin to keep lines, with one of them, and return what will get them."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(trial, "_held", [])
    trial.hold()
    print("recipe standard", file=sys.stderr)
    return stream


def test_processes_that_pay_go_on_and_say_so(monkeypatch, tmp_path):
    stderr = keeping(monkeypatch)
    pending(monkeypatch, tmp_path / "found").judge(forecast(5), lambda: forecast(8))
    assert Found.read(tmp_path / "found") == Found(5, 8, goes_on=True)
    assert stderr.getvalue() == (
        "recipe standard\ntrains in 1 processes, 1.60x as fast as in one (--processes 1: in one)\n"
    )
    assert Trial.pending() is None, "the steps after it are not tried again"


@pytest.mark.parametrize(
    ("about", "seconds", "alone"),
    [({}, 5.0, 5.2), ({}, 5.0, 4.0), ({"last": False}, 5.0, 8.0), ({"alone": 8.0, "best": 4.0}, 5.0, 8.0)],
)
def test_the_others_end_in_silence(monkeypatch, tmp_path, about, seconds, alone):
    stderr = keeping(monkeypatch)
    made = pending(monkeypatch, tmp_path / "found", **about)
    with pytest.raises(TrialEnded):
        made.judge(forecast(seconds), lambda: forecast(alone))
    assert Found.read(tmp_path / "found") == Found(seconds, alone, goes_on=False)
    trial.release()
    assert stderr.getvalue() == ""


def test_a_training_that_cannot_be_timed_is_none_for_several(monkeypatch, tmp_path):
    keeping(monkeypatch)
    made = pending(monkeypatch, tmp_path / "found")
    with pytest.raises(TrialEnded):
        made.judge(Forecast([], Cost(), reason="too small"), lambda: forecast(1))
    assert Found.read(tmp_path / "found") == Found(None, None, goes_on=False, reason="too small")


def test_the_process_alone_may_use_all_threads(monkeypatch, tmp_path):
    keeping(monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before, seen = torch.get_num_threads(), []

    def rehearse():
        seen.append((torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")))
        return forecast(8)

    pending(monkeypatch, tmp_path / "found", threads=before + 1).judge(forecast(5), rehearse)
    pending(monkeypatch, tmp_path / "found").judge(forecast(5), rehearse)
    assert seen == [(before + 1, None), (before, "1")]
    assert torch.get_num_threads() == before


def distil(teacher, output):
    options = {"epochs": 2, "batch_size": 64, "device": "cpu", "precision": "fp32", "views": 2}
    with announcing():
        return kdtool.distill(teacher, "kd", refiner="halve", output=output, **options)


@pytest.mark.slow
def test_two_processes_foresee_and_train_as_without_it(teacher_path, tmp_path, in_processes, capfd):
    assert in_processes(lambda: distil(teacher_path, tmp_path / "told.pt")) == [0, 0]
    said = capfd.readouterr().err
    assert said.count("makes told.pt by 2 epochs of 21 steps\n") == 1
    assert said.count(" in 2 processes, ") == 1
    known = read_forecast(tmp_path / "told.run")
    assert known is not None
    assert known.processes == 2
    assert known.timed_steps > 0
    assert known.cost.seconds > 0

    def untold():
        rehearsal.Rehearsal.of = None  # no rehearsal
        kdtool.distill(
            teacher_path, "kd", refiner="halve", output=tmp_path / "untold.pt",
            epochs=2, batch_size=64, device="cpu", precision="fp32", views=2,
        )  # fmt: skip

    assert in_processes(untold) == [0, 0]
    one, two = (kdtool.load(tmp_path / f"{name}.pt").module.state_dict() for name in ("told", "untold"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("factor", [pytest.param(100.0, marks=pytest.mark.slow), 0.01])
def test_both_are_timed_for_real(factor, teacher_path, tmp_path, in_processes, monkeypatch):
    """The time of one process is changed by a factor, so that it is known which is faster."""
    output = tmp_path / "two.pt"
    made = pending(monkeypatch, tmp_path / "found")
    monkeypatch.delenv(VARIABLE)
    measured = Trial._alone

    def work():
        monkeypatch.setattr(Trial, "_alone", lambda self, rehearse: factor * measured(self, rehearse))
        try:
            distil(teacher_path, output)
        except TrialEnded:
            assert factor < 1

    assert in_processes(work, **{VARIABLE: made.text()}) == [0, 0]
    found = Found.read(tmp_path / "found")
    assert found is not None
    assert found.goes_on is (factor > 1)
    assert output.exists() is (factor > 1)
    assert (tmp_path / "two.run").exists() is (factor > 1), "a trial that ends leaves nothing"


def test_a_batch_that_is_too_small_ends_the_trial(teacher_path, tmp_path, in_processes, monkeypatch):
    made = pending(monkeypatch, tmp_path / "found")
    monkeypatch.delenv(VARIABLE)

    def work():
        for dry_run in (False, True):
            with pytest.raises(TrialEnded):
                kdtool.distill(teacher_path, refiner="halve", output=tmp_path / "s.pt", batch_size=3, dry_run=dry_run)

    assert in_processes(work, **{VARIABLE: made.text()}) == [0, 0]
    found = Found.read(tmp_path / "found")
    assert found is not None
    assert found.reason.startswith("--batch-size 3: 2 processes need 4 images")


def test_a_dry_run_of_two_processes_is_told_once(teacher_path, tmp_path, in_processes, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    structures = tmp_path / "structures"
    structures.mkdir()

    def work():
        made = kdtool.distill(teacher_path, refiner="halve", epochs=3, output="s.pt", dry_run=True)
        about = made.history[-1]["forecast"]
        (structures / os.environ["RANK"]).write_text(
            f"{made.network.architecture.as_data()} {about['cost']['seconds']}"
        )

    assert in_processes(work) == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["structures"]
    first, second = (path.read_text() for path in structures.iterdir())
    assert first == second, "all processes know the forecast of the first"
    assert capfd.readouterr().err.count("makes s.pt by 3 epochs of 21 steps\n") == 1
