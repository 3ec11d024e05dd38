"""A plugin that listens may raise, exit, print, hang or return nonsense: it hurts only itself."""

import os
import sys
import time

import pluggy
import pytest

import kdtool
from kdtool.plugins import listeners
from kdtool.plugins.entry_points import manager
from kdtool.plugins.listeners import notify

hookimpl = pluggy.HookimplMarker("kdtool")


def plugin(action):
    class Listener:
        calls = 0

        @hookimpl
        def epoch_ended(self, epoch):
            self.calls += 1
            return action(epoch)

        @hookimpl
        def checkpoint_saved(self, path):
            self.calls += 1
            return action(path)

    return Listener()


@pytest.fixture
def listening():
    """Return a function that registers plugins for one test."""
    registered = []

    def register(*actions):
        for action in actions:
            registered.append(plugin(action))
            manager().register(registered[-1], name=f"test {len(registered)}")
        return registered

    yield register
    for listener in registered:
        if manager().is_registered(listener):
            manager().unregister(listener)


def raises(_):
    raise ValueError("a mistake\nof two lines")


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (raises, "ValueError: a mistake of two lines"),
        (lambda _: sys.exit(0), "SystemExit: 0"),
        (lambda _: time.sleep(30), "takes longer than 0.1 s"),
        (lambda _: (lambda: None).no_such_thing, "AttributeError"),
    ],
)
def test_one_that_fails_is_named_and_not_called_again(listening, capsys, monkeypatch, action, reason):
    monkeypatch.setattr(listeners, "LIMIT", 0.1)
    good, bad, last = listening(lambda _: None, action, lambda _: object())
    for epoch in (1, 2):
        notify("epoch_ended", run=None, phase="kd", epoch=epoch, metrics={})
    assert (good.calls, bad.calls, last.calls) == (2, 1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"warning: plugin test 2: epoch_ended() failed: {reason}")
    assert err.endswith("; it is not called again\n")
    assert err.count("\n") == 1


def test_what_it_prints_goes_to_stderr(listening, capsys):
    listening(print)
    notify("epoch_ended", run=None, phase="kd", epoch=7, metrics={})
    assert capsys.readouterr() == ("", "7\n")


def test_an_interruption_is_the_users(listening):
    def interrupted(_):
        raise KeyboardInterrupt

    listening(interrupted)
    with pytest.raises(KeyboardInterrupt):
        notify("epoch_ended", run=None, phase="kd", epoch=1, metrics={})


def test_a_training_with_broken_listeners_gives_the_same_weights(
    listening, tmp_path, teacher_path, monkeypatch, capsys
):
    monkeypatch.setattr(listeners, "LIMIT", 0.1)
    options = {"method": "kd", "student": "kdtool:lenet-300-100", "epochs": 2}
    alone = kdtool.distill(teacher_path, **options, output=tmp_path / "alone.pt")
    broken = listening(raises, lambda _: sys.exit(0), lambda _: os._exit(0), lambda _: time.sleep(30))
    with_them = kdtool.distill(teacher_path, **options, output=tmp_path / "with.pt")
    assert [listener.calls for listener in broken] == [1, 1, 1, 1]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: plugin test ")]
    assert len(said) == 4
    assert all(line.endswith("; it is not called again") for line in said)
    for ours, theirs in zip(with_them.module.parameters(), alone.module.parameters(), strict=True):
        assert (ours == theirs).all()
