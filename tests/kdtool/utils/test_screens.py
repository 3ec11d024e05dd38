"""What progress looks like off a terminal, in a notebook and in narrow terminals."""

import contextlib
import io
import re
import sys
import time
import types

import pytest

from kdtool.utils import bars, meters, progress, screens
from kdtool.utils.meters import Meter, Screen
from kdtool.utils.screens import InPlace, Lines
from kdtool.utils.verbosity import QUIET, VERBOSE, verbosity


def test_off_a_terminal_a_line_comes_when_an_epoch_ends_but_no_more_than_one_in_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(screens.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Lines, "_watch", lambda self: None)
    with Lines(None, []) as screen:
        for epoch in range(1, 10):
            clock[0] += 25
            screen.epoch_ended(f"epoch {epoch}")

    # 25 s an epoch: after 75 s, 150 s and 225 s.
    assert capsys.readouterr().err.splitlines() == ["epoch 3", "epoch 6", "epoch 9"]


def test_long_epochs_have_a_line_each(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(screens.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Lines, "_watch", lambda self: None)
    with Lines(None, []) as screen:
        for epoch in (1, 2):
            clock[0] += 61
            screen.epoch_ended(f"epoch {epoch}")

    assert capsys.readouterr().err.splitlines() == ["epoch 1", "epoch 2"]


def test_a_long_step_is_not_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "SILENT_SECONDS", 0.05)
    with progress.progress("stage 1", 100) as advance:
        advance(7, "epoch 1/3  loss 0.500")
        time.sleep(0.3)

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert lines[0].startswith("stage 1 7%, epoch 1/3  loss 0.500")


def test_the_silence_is_shorter_than_two_minutes() -> None:
    assert screens.SILENT_SECONDS < 120
    assert screens.LINE_SECONDS == 60


def test_quiet_says_nothing_and_verbose_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    with verbosity(QUIET), progress.progress("kd", 10) as advance:
        advance(1, "note")
        progress.epoch_ended("epoch 1")
        progress.say("a line")
        progress.say_once("said in a quiet command")
    assert capsys.readouterr().err == ""

    with verbosity(VERBOSE), progress.progress("kd", 10):
        progress.epoch_ended("epoch 1")
    progress.say_once("said in a quiet command")
    # What was not printed then is no repetition now.
    assert capsys.readouterr().err.splitlines() == ["epoch 1", "said in a quiet command"]


def test_the_bar_of_a_command_moves_by_the_seconds_that_were_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Screen] = []
    monkeypatch.setattr(
        progress.screens, "opened", lambda whole, phases: shown.append(Screen(whole, phases)) or shown[-1]
    )
    with progress.command_progress("student.pt", [("first", 30.0), ("second", 60.0), ("third", 10.0)]):
        whole = shown[-1].whole
        assert whole is not None
        progress.phase_skipped("first")
        assert whole.fraction == pytest.approx(0.3)
        with progress.progress("second", 200) as advance:
            advance(0)
            advance(50, "epoch 1/4")
            assert whole.fraction == pytest.approx(0.3 + 0.25 * 0.6)
        # It ended before its last step.
        assert whole.fraction == pytest.approx(0.9)
        with progress.progress("reading images", 10) as advance:
            advance(5)
        assert whole.fraction == pytest.approx(0.9)


def test_phases_that_do_not_come_make_room_for_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(screens.time, "monotonic", lambda: clock[0])
    screen = Screen(Meter("student.pt", 0), [("kd", 10.0), ("kd", 10.0), ("kd", 80.0)])
    screen.remove(screen.add("kd", 5))
    clock[0] += 10
    screen.expect([("kd", 30.0)])
    assert (screen.whole.fraction, screen.left()) == (pytest.approx(0.25), pytest.approx(30))
    meter = screen.add("kd", 10)
    clock[0] += 15
    screen.advance(meter, 5, "epoch")
    assert screen.left() == pytest.approx(15)


def test_the_time_left_is_the_forecast_first_and_then_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(screens.time, "monotonic", lambda: clock[0])
    screen = Screen(Meter("student.pt", 0), [("kd", 100.0)])
    meter = screen.add("kd", 1000)
    assert screen.left() == pytest.approx(100)
    clock[0] += 30
    screen.advance(meter, 100, "")  # resumed: these steps are those of an earlier process
    assert screen.left() == pytest.approx(90)
    clock[0] += 30
    screen.advance(meter, 300, "epoch")
    # 300 steps, 30 s of the forecast, took 60 s; the other 60 s take twice as long too.
    assert screen.left() == pytest.approx(120)


def test_the_time_left_of_another_process_is_not_guessed() -> None:
    screen = Screen(Meter("recipe.study", 0), [])
    screen.whole_is(0.4, None)
    assert (screen.whole.fraction, screen.left()) == (0.4, None)
    screen.whole_is(0.4, 90.0)
    assert screen.left() == 90


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_bars_fit_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(bars, "Console", lambda **_: console)
    with bars.Bars(Meter("a-student-with-a-long-name.pt", 0), [("M1 from M0", 50.0)]) as screen:
        meter = screen.add("M1 from M0", 100)
        screen.refreshed = 0.0
        meter.started -= 60
        screen.advance(meter, 40, "epoch 12/200  loss 0.123  val 0.9876")
        screen.progress.refresh()
        shown = out.getvalue()

    lines = [
        line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n").split("\n") if line.strip()
    ]
    assert all(len(line) <= width for line in lines), lines
    assert "40%" in shown
    assert "left" in shown
    assert ("loss 0.123" in shown) == (width >= 120)


def test_a_notebook_has_one_line_that_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class ZMQInteractiveShell:
        pass

    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=ZMQInteractiveShell))
    monkeypatch.setattr(meters, "REFRESH_SECONDS", 0.0)
    assert isinstance(screens.opened(None, []), InPlace)
    with progress.progress("kd", 4) as advance:
        advance(1, "epoch 1/2")
        advance(1, "epoch 1/2")

    out = capsys.readouterr().err
    assert out.startswith("\rkd 25%, epoch 1/2")
    assert "\rkd 50%, epoch 1/2" in out
    assert "\n" not in out
    assert out.endswith("\r")


def test_anything_may_be_in_the_place_of_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    class Tee:
        def write(self, text: str) -> int:
            return len(text)

        def flush(self) -> None:
            pass

    with contextlib.redirect_stderr(Tee()):
        assert isinstance(screens.opened(None, []), Lines)
    with contextlib.redirect_stderr(None):
        assert not isinstance(screens.opened(None, []), Lines)
        progress.say("a line")
    assert capsys.readouterr().out == ""


def test_a_terminal_that_cannot_move_the_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(screens.opened(None, []), Lines)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(screens.opened(None, []), bars.Bars)
