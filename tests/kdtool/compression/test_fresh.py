"""A candidate with fresh weights gets a full training beside the best one, if the teacher had no longer one."""

import json
from types import SimpleNamespace

import pytest
import torch

import kdtool
from kdtool.compression import command
from kdtool.compression.candidates import Candidate
from kdtool.compression.command import _Work
from kdtool.compression.costs import Cost, Limits
from kdtool.compression.epoch_times import Times
from kdtool.compression.fresh import epochs_seen, fresh_one
from kdtool.compression.options import Given
from kdtool.compression.record import results_of
from kdtool.compression.schedule import FOR_FRESH, SPARE, Schedule, plan
from kdtool.models.checkpoint import read
from kdtool.training.options import Training
from kdtool.training.run import Run


def candidate(name, macs=1, *, inherits=True, made=True):
    return Candidate("refiners", name, {}, "float32", Cost(macs, 1), object() if made else None, inherits)


KEPT = [candidate(f"kept{number}") for number in range(4)]
FRESH = candidate("like", 5, inherits=False)
TIMES = Times({"like": 4.0, **{one.name: 10.0 for one in KEPT}}, teacher=5.0)


def planned(hours=None, *, epochs=20, given=False, seen=8.0, fresh=FRESH, candidates=KEPT):
    about = {"hours": hours, "spent": 60.0, "given": given, "steps": 10, "fresh": fresh, "seen": seen}
    return plan(candidates, TIMES, Training(epochs=epochs), **about)


def test_it_is_the_one_with_the_most_macs_of_those_with_fresh_weights():
    assert fresh_one([*KEPT, FRESH, candidate("narrow", 3, inherits=False)]) is FRESH
    assert fresh_one(KEPT) is None
    # Where nothing keeps weights of the teacher, trials are fair.
    assert fresh_one([FRESH, candidate("narrow", 3, inherits=False)]) is None
    assert fresh_one([*KEPT, candidate("gated", 9, inherits=False, made=False)]) is None


def test_without_hours_it_needs_as_many_epochs_as_the_teacher_had():
    schedule = planned(epochs=8)
    assert (schedule.fresh, schedule.fresh_epochs, schedule.names[0]) == ("like", 8, "like")
    assert len(schedule.names) == len(KEPT)  # it takes the place of the last one
    # By hand: 8 epochs of 4 s, and the teacher on two views.
    assert schedule.fresh_seconds == 8 * 4 + 2 * 5
    assert planned(epochs=7).fresh == ""
    assert planned(epochs=300, seen=None).fresh == ""
    assert planned(epochs=8, fresh=None) == planned(epochs=8, seen=None)


def test_with_hours_it_has_three_quarters_of_the_time():
    left = SPARE * (0.2 * 3600 - 60)
    schedule = planned(0.2)
    assert schedule.fresh == "like"
    # By hand: 445 s are three quarters of it; 101 epochs of 4 s and 8 views of 5 s take 444 s.
    assert (FOR_FRESH * left, schedule.fresh_epochs) == (pytest.approx(445.5), 101)
    assert schedule.seconds <= left
    assert schedule.deadline < (1 - FOR_FRESH) * left
    assert planned(0.2, seen=102).fresh == ""
    assert planned(0.2, seen=102).deadline > (1 - FOR_FRESH) * left
    assert planned(0.2, epochs=7, given=True).fresh == ""
    assert planned(0.2, epochs=8, given=True).fresh_epochs == 8


def test_a_quarter_in_which_nothing_else_can_be_tried_is_too_little():
    assert planned(0.03, seen=1.0).fresh == ""


def test_a_schedule_with_it_is_plain_data():
    schedule = planned(0.2)
    assert Schedule.from_data(json.loads(json.dumps(schedule.as_data()))) == schedule


def entry(epochs, images, **more):
    return {"training": {"epochs": epochs}, "data": {"splits": {"train": {"images": images}}}, **more}


@pytest.mark.parametrize(
    ("history", "seen"),
    [
        ([entry(8, 100)], 4.0),
        ([entry(8, 100), {"training": {}, "data": {}}, entry(2, 200)], 6.0),
        ([entry(8, 100, trained_elsewhere=True)], None),
        ([entry(0, 100)], None),
        ([{"training": {"epochs": 8}, "data": {"splits": {}}}], None),
        ([{"training": {"epochs": "many"}, "data": {}}], None),
        ([], None),
    ],
)
def test_how_long_a_teacher_was_trained_is_in_its_history(history, seen):
    assert epochs_seen(history, 200) == seen


@pytest.mark.parametrize(
    ("within", "load", "trained"), [(True, 0.9, True), (True, 1.2, False), (False, 0.9, False), (None, 0.9, False)]
)
def test_it_is_trained_in_full_if_its_trial_was_good_and_it_is_within_the_budget(within, load, trained, monkeypatch):
    work = object.__new__(_Work)
    row = None if within is None else {"within": within}
    work.trials = SimpleNamespace(by_name={"like": FRESH}, last=lambda name: row)
    work.schedule = planned(0.2)
    work.proposals = SimpleNamespace(limits=Limits(latency_ratio=0.5))
    monkeypatch.setattr(command, "measured_load", lambda trials, one: load)
    assert work._fresh() is (FRESH if trained else None)
    work.schedule = planned(0.2, seen=None)
    assert work._fresh() is None


def test_the_best_one_has_a_quarter_of_the_time_and_the_fresh_one_what_is_left_then(tmp_path):
    work = object.__new__(_Work)
    work.run, work.schedule = SimpleNamespace(directory=tmp_path, training=Training()), planned(0.2)
    work.given, work.fresh = Given({}, {}, SimpleNamespace(hours=0.2)), FRESH
    work.proposals = SimpleNamespace(seconds=60.0, teacher=SimpleNamespace(macs=1e6))
    rows = [{"setting": name, "epochs": 1, "seconds": 10.0, "full": False} for name in ("kept0", "like")]
    work.trials = SimpleNamespace(done=rows, seconds=20.0)
    # By hand: a quarter of 594 s less 20 s of trials, at 10 s an epoch and 5 s for each of 2 or 3 views.
    assert work._decided_epochs(KEPT[0]) == 11
    work.trials.seconds = 20.0 + 11 * 10 + 2 * 5
    # 454 s are left, of which the teacher needs 8 * 5.
    assert work._decided_epochs(FRESH) == 41
    assert json.loads((tmp_path / "final.json").read_text()) == {KEPT[0].name: 11, "like": 41}
    work.fresh = None  # it was beyond the budget: then the best one has all of the time
    assert work._decided_epochs(KEPT[1]) > 30


@pytest.mark.slow  # two compressions, half a minute
def test_it_is_trained_in_full_whatever_its_trial_says_and_a_killed_run_goes_on(tmp_path, monkeypatch, capsys):
    teacher = kdtool.teacher("kdtool:wrn-16-2", data="digits", image_size=8, epochs=1, output=tmp_path / "teacher.pt")
    about = {"max_macs": "0.7x", "candidates": ("like", "halve"), "quantised": False, "epochs": 1, "seed": 1}
    whole = kdtool.compress(teacher, output=tmp_path / "whole.pt", **about)
    rows = results_of(whole)["trials"]
    full = [row["setting"].split()[0] for row in rows if row["full"]]
    assert sorted(full) == ["halve", "like"]
    best = max((row for row in rows if row["full"]), key=lambda row: row["accuracy"])
    assert results_of(whole)["winner"] == best["setting"]
    assert "has fresh weights, of which short trials say little: it goes on in full too" in capsys.readouterr().err
    logged, log = [], Run.log

    def killing(self, row):
        logged.append(row)
        if len(logged) == 4:  # two trials, the best one in full, and now the fresh one
            raise KeyboardInterrupt
        log(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", killing)
        with pytest.raises(KeyboardInterrupt):
            kdtool.compress(teacher, output=tmp_path / "cut.pt", **about)
    assert len(json.loads((tmp_path / "cut.run" / "trials.json").read_text())) == 3
    kdtool.compress(teacher, output=tmp_path / "cut.pt", resume=True, **about)
    weights = read(tmp_path / "cut.pt").module.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in whole.module.state_dict().items())
