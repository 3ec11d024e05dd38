"""Where progress is shown: bars in a terminal, one line that changes in a notebook, plain lines in a file.

A log file, ``nohup``, a CI job and a batch job of a cluster have no terminal. They get a line when an epoch ends, at
most one in `LINE_SECONDS`, so that a training of thousands of short epochs does not fill the disk, and a line after
`SILENT_SECONDS` without one, so that a long epoch does not look like a process that hangs.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from kdtool.utils.formatting import shown_duration
from kdtool.utils.verbosity import is_quiet, is_verbose

LINE_SECONDS = 60.0

SILENT_SECONDS = 115.0

REFRESH_SECONDS = 0.25

# Before this share of a command is done, its time left is the one that was foreseen: one step tells too little.
ENOUGH = 0.02


class Meter:
    """A bar: how many of ``total`` steps are done."""

    def __init__(self, title: str, total: float) -> None:
        """Begin at 0 of ``total``."""
        self.title, self.total, self.done, self.note = title, total, 0.0, ""
        self.weight: float | None = None
        """The seconds that were foreseen for it, if it is a phase of the command."""
        self.started, self.begun_at = time.monotonic(), 0.0
        """When the first step that was not skipped began, and how many were done then."""

    @property
    def fraction(self) -> float:
        """The part that is done, from 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def seconds_left(self) -> float | None:
        """Return the time that the rest takes at the speed so far; None where nothing is known."""
        done, elapsed = self.done - self.begun_at, time.monotonic() - self.started
        return (self.total - self.done) * elapsed / done if done > 0 else None


class Screen:
    """Bars that belong together; this one shows nothing."""

    def __init__(self, whole: Meter | None, phases: Sequence[tuple[str, float]]) -> None:
        """Show ``whole``, the bar of a command, over its ``phases``: their titles and the seconds foreseen."""
        self.whole, self.phases, self.meters = whole, list(phases), list[Meter]()
        self.ended = 0.0
        self.known_left: float | None = None
        if whole is not None:
            whole.total = sum(seconds for _, seconds in phases)

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()

    def add(self, title: str, total: float) -> Meter:
        """Show a bar, the innermost so far."""
        meter = Meter(title, total)
        meter.weight = self._take(title)
        self.meters.append(meter)
        return meter

    def _take(self, title: str) -> float | None:
        """Return the seconds foreseen for a phase, which is then not expected again."""
        place = next((place for place, (name, _) in enumerate(self.phases) if name == title), None)
        return None if place is None else self.phases.pop(place)[1]

    def skip(self, title: str) -> None:
        """Count a phase as done that takes no time any more."""
        seconds = self._take(title)
        if seconds is not None and self.whole is not None:
            self.ended += seconds
            self.whole.begun_at += seconds
            self._move_whole()

    def advance(self, meter: Meter, steps: int, note: str) -> None:
        """Move a bar; the steps of a bar's first call, before any time has passed, may be those of an earlier run."""
        if not meter.note and not note and meter.done == 0:
            meter.begun_at = steps
            if meter.weight is not None and self.whole is not None and meter.total:
                self.whole.begun_at += meter.weight * steps / meter.total
        meter.done += steps
        meter.note = note or meter.note
        self._move_whole()
        self.refresh()

    def _move_whole(self) -> None:
        if self.whole is not None:
            running = (meter.weight * meter.fraction for meter in self.meters if meter.weight is not None)
            self.whole.done = self.ended + sum(running)

    def remove(self, meter: Meter) -> None:
        """End a bar; a phase may end before its last step."""
        self.meters.remove(meter)
        if meter.weight is not None:
            self.ended += meter.weight
            self._move_whole()
        self.refresh()

    def whole_is(self, fraction: float, left: float | None) -> None:
        """Set how much of the whole is done, and the seconds that are left if another process knows them."""
        if self.whole is not None:
            self.whole.total, self.whole.done, self.known_left = 1.0, fraction, left

    def left(self) -> float | None:
        """Return the seconds that the command still takes, or else the innermost bar."""
        whole = self.whole
        if self.known_left is not None:
            return self.known_left
        if whole is None or not whole.total:
            return self.meters[-1].seconds_left() if self.meters else None
        enough = whole.done - whole.begun_at > ENOUGH * whole.total
        return whole.seconds_left() if enough else whole.total - whole.done

    def status(self) -> str:
        """Return all that is known as one line."""
        meters = self.meters or ([self.whole] if self.whole is not None else [])
        parts = [f"{meter.title} {meter.fraction:.0%}{f', {meter.note}' * bool(meter.note)}" for meter in meters]
        return "; ".join(parts) + self._left_shown()

    def _left_shown(self) -> str:
        left = self.left()
        return f"; about {shown_duration(left)} left" if left is not None and left > 0.5 else ""

    def refresh(self) -> None:
        """Show how far all is."""

    def epoch_ended(self, line: str) -> None:
        """Show that an epoch ended, as ``line`` says."""
        if is_verbose():
            self.clear()
            print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for a line."""

    def pause(self) -> None:
        """Show nothing until `resume`."""

    def resume(self) -> None:
        """Show the bars again."""


class Lines(Screen):
    """Plain lines, for what is no terminal."""

    def __enter__(self) -> Screen:
        self.spoke, self.over = time.monotonic(), threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.over.set()
        self.thread.join()

    def epoch_ended(self, line: str) -> None:
        """Print a line about an epoch, unless another one was printed just before."""
        if is_verbose() or time.monotonic() - self.spoke >= LINE_SECONDS:
            self._print(line + self._left_shown())

    def clear(self) -> None:
        """Make room for a line."""
        self.spoke = time.monotonic()

    def _watch(self) -> None:
        while not self.over.wait(max(0.01, self.spoke + SILENT_SECONDS - time.monotonic())):
            if time.monotonic() - self.spoke >= SILENT_SECONDS:
                self._print(self.status())

    def _print(self, line: str) -> None:
        self.spoke = time.monotonic()
        if line:
            print(line, file=sys.stderr, flush=True)


class InPlace(Screen):
    """One line that changes, for a notebook."""

    def __enter__(self) -> Screen:
        self.refreshed, self.width = 0.0, 0
        return self

    def refresh(self) -> None:
        """Show how far all is, if enough time has passed."""
        if time.monotonic() - self.refreshed >= 2 * REFRESH_SECONDS:
            self._write(self.status())

    def clear(self) -> None:
        """Make room for a line."""
        if self.width:
            self._write("")

    def _write(self, text: str) -> None:
        self.refreshed = time.monotonic()
        print("\r" + text.ljust(self.width), end="" if text else "\r", file=sys.stderr, flush=True)
        self.width = len(text)


def opened(whole: Meter | None, phases: Sequence[tuple[str, float]]) -> Screen:
    """Return the screen that suits stderr."""
    if is_quiet():
        return Screen(whole, phases)
    if in_notebook():
        return InPlace(whole, phases)
    # Where latency is measured on another device, rich may be missing.
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and importlib.util.find_spec("rich") is not None:
        from kdtool.utils.bars import Bars

        return Bars(whole, phases)
    return Lines(whole, phases)


def in_notebook() -> bool:
    """Return whether a notebook shows what is printed."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
