"""``--hours``: the epochs that fit into a time, by estimates that are not quite proportional and not quite right."""

import re

import pytest

import kdtool
from kdtool import UsageError
from kdtool.commands import hours
from kdtool.commands.hours import epochs_within
from kdtool.training.options import Training

FEW = {"data": "digits", "subset": 0.2, "device": "cpu"}


def asked(seconds, cost):
    tried = []

    def seconds_of(epochs):
        tried.append(epochs)
        return cost(epochs)

    return *epochs_within(seconds, seconds_of), tried


@pytest.mark.parametrize(
    ("seconds", "cost", "expected"),
    [
        (100.0, lambda epochs: 2.0 * epochs, (50, 100.0)),
        (99.0, lambda epochs: 2.0 * epochs, (49, 98.0)),
        (100.0, lambda epochs: 20 + 2.0 * epochs, (40, 100.0)),
        # The teacher runs on one of four views: by hand, 45 * 2 + 8 = 98 and 46 * 2 + 8 = 100.
        (100.0, lambda epochs: 2.0 * epochs + min(8, max(2, epochs // 4)), (46, 100.0)),
        (1.5, lambda epochs: 1.0 * epochs, (1, 1.0)),
        (1e9, lambda epochs: 1.0 * epochs, (hours.MOST_EPOCHS, hours.MOST_EPOCHS)),
        (3.0, lambda epochs: 4.0 * epochs, (0, 4.0)),
    ],
)
def test_the_most_epochs_that_fit(seconds, cost, expected):
    epochs, took, tried = asked(seconds, cost)
    assert (epochs, took) == (expected[0], pytest.approx(expected[1]))
    assert tried[0] == Training().epochs
    assert len(tried) <= 3


def test_estimates_that_contradict_each_other_lead_to_fewer_epochs():
    # The second estimate is slow by chance: 30 epochs seem to take twice as long as by the first one.
    epochs, took, _ = asked(30.0, lambda epochs: 20.0 if epochs == 20 else 2.0 * epochs)
    assert 1 <= epochs <= 20
    assert took <= 30.0


@pytest.fixture
def timed(monkeypatch):
    """Let every epoch of a forecast take ten seconds."""
    monkeypatch.setattr(hours, "_seconds", lambda made: 10.0 * made.history[-1]["training"]["epochs"])


def test_every_command_that_trains_takes_hours_and_records_epochs(tmp_path, timed, capsys):
    # By hand: 0.95 of 36 s are three epochs of 10 s.
    teacher = kdtool.teacher("kdtool:lenet-300-100", hours=0.01, output=tmp_path / "t.pt", **FEW)
    student = kdtool.distill(teacher.path, refiner="halve", hours=0.01, output=tmp_path / "s.pt")
    pruned = kdtool.prune(teacher.path, ratio=0.5, hours=0.01, output=tmp_path / "p.pt")
    for made in (teacher, student, pruned):
        entry = made.history[-1]
        assert entry["training"]["epochs"] == 3
        assert "--epochs 3" in entry["line"]
        assert "--hours" not in entry["line"]
    said = re.findall(r"--hours 0.01: 3 epochs, which take about 30 s here", capsys.readouterr().err)
    assert len(said) == 3


def test_the_epoch_to_keep_may_lie_behind_those_that_are_tried(tmp_path, monkeypatch):
    # By hand: 0.95 of 72 s are 68 epochs of 1 s, less the time for finding out, and the first try is of fewer.
    monkeypatch.setattr(hours, "_seconds", lambda made: 1.0 * made.history[-1]["training"]["epochs"])
    options = {"hours": 0.02, "dry_run": True, "output": tmp_path / "t.pt", **FEW}
    assert Training().epochs < 30
    made = kdtool.teacher("kdtool:lenet-300-100", keep_epoch=30, **options)
    assert made.early.epoch == 30
    with pytest.raises(UsageError, match=r"--keep-epoch 90: the training has [56]\d epochs"):
        kdtool.teacher("kdtool:lenet-300-100", keep_epoch=90, **options)


def test_a_run_that_is_resumed_keeps_the_epochs_with_which_it_began(tmp_path, timed, monkeypatch):
    options = {"hours": 0.01, "output": tmp_path / "t.pt", **FEW}
    first = kdtool.teacher("kdtool:lenet-300-100", **options)
    monkeypatch.setattr(hours, "_seconds", lambda made: 1.0)
    again = kdtool.teacher("kdtool:lenet-300-100", resume=True, **options)
    assert again.history[-1]["training"]["epochs"] == first.history[-1]["training"]["epochs"] == 3


def test_what_cannot_be_is_refused(tmp_path, timed, teacher_path):
    with pytest.raises(UsageError, match="--hours and --epochs both say how long the training is"):
        kdtool.distill(teacher_path, hours=1, epochs=2, output=tmp_path / "s.pt")
    with pytest.raises(UsageError, match=r"--hours 0.001: one epoch takes about 10 s; give --hours 0.01 or more"):
        kdtool.prune(teacher_path, ratio=0.5, hours=0.001, output=tmp_path / "s.pt")
    with pytest.raises(UsageError, match="--hours: nothing is trained without --data"):
        kdtool.teacher("kdtool:lenet-300-100", hours=1, output=tmp_path / "s.pt")
    assert not list(tmp_path.glob("s.*"))


def test_a_command_whose_time_is_not_known_is_refused():
    with pytest.raises(UsageError, match="--hours: how long this takes is not known beforehand"):
        hours._seconds(_forecast(reason="they depend on the result of M1"))
    with pytest.raises(UsageError, match="--hours: nothing is trained"):
        hours._seconds(_forecast(phases=[]))
    assert hours._seconds(_forecast()) == 7.0


def _forecast(**changes):
    forecast = {"phases": [{"name": "kd"}], "reason": "", "cost": {"seconds": 7.0, "cpu_seconds": 9.0}, **changes}
    return type("Made", (), {"history": [{"forecast": forecast}]})()
