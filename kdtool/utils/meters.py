"""Bars that belong together, before anybody sees them: how far each is, and how long the rest takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from kdtool.utils.formatting import shown_duration
from kdtool.utils.verbosity import is_verbose

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
        self.follows = False
        """Whether another process works: its time left is ``known_left``, and is not guessed from what was seen."""
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

    def expect(self, phases: Sequence[tuple[str, float]]) -> None:
        """Foresee these phases from now on, in place of those that did not come: what is done stays done."""
        self.phases = list(phases)
        if self.whole is not None:
            self.whole.total = self.whole.done + sum(seconds for _, seconds in phases)
            self.refresh()

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
        """Set how much of the whole another process has done, and the seconds that are left if they are known."""
        if self.whole is not None:
            self.whole.total, self.whole.done = 1.0, fraction
            self.follows, self.known_left = True, left

    def left(self) -> float | None:
        """Return the seconds that the command still takes, or else the innermost bar."""
        whole = self.whole
        if self.follows:
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
