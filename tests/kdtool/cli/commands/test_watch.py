"""What ``kdtool watch`` shows of a study."""

import time

import pytest

from kdtool.cli.commands import watch
from kdtool.utils import screens
from kdtool.utils.meters import Screen

RUN = {
    "name": "half.run",
    "state": "running",
    "phase": "kd",
    "epoch": 5,
    "epochs": 10,
    "val_accuracy": None,
    "val_loss": None,
    "best_accuracy": None,
    "fraction": 0.5,
    "seconds_left": 60.0,
}


def study(planned, done=10):
    names = [f"teacher_seed={seed}" for seed in range(done)]
    return {
        "name": "r.study",
        "state": "running",
        "planned": planned,
        "done": names,
        "failed": [],
        "begun": ["half"],
        "runs": [RUN],
    }


def test_a_study_of_many_steps_is_not_nearly_done_when_those_that_began_are():
    assert watch.lines(study(2000))[0] == "r.study: running, 10 of 2,000 done, 1 begun"
    assert watch._fraction(study(2000)) == pytest.approx(10.5 / 2000)
    assert watch.lines(study(5, done=0))[0] == "r.study: running, 0 of 5 done, 1 begun"


def test_without_the_number_of_steps_a_study_has_no_fraction():
    assert watch.lines(study(None))[0] == "r.study: running, 10 done, 1 begun"
    assert watch._fraction(study(None)) == 0


def test_the_speed_is_that_which_is_seen(tmp_path, monkeypatch):
    """The first 500 epochs were done before; 10 take 20 s, so the other 490 take 980 s."""
    clock, seen, opened = [0.0], [], []
    run = RUN | {"epoch": 500, "epochs": 1000, "seconds_left": None}
    states = iter([run | {"epoch": 510}, run | {"state": "finished"}])

    def state(_):
        seen.append((opened[0].meters[0].seconds_left(), opened[0].left()))
        clock[0] += 20
        return next(states)

    monkeypatch.setattr(screens, "opened", lambda *arguments: opened.append(Screen(*arguments)) or opened[0])
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr("kdtool.api.watch", state)
    watch._follow(tmp_path, run)
    assert seen == [(None, None), (980, None)]
