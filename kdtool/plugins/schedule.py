"""A number that changes from one value to another during a phase (``4->1``)."""

from __future__ import annotations

from dataclasses import dataclass

from kdtool.errors import UsageError

ARROW = "->"


@dataclass(frozen=True)
class Schedule:
    """A number that changes linearly from ``start`` in the first epoch of a phase to ``end`` in the last."""

    start: float
    end: float

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Return the schedule of a text such as ``4->1``.

        Raises:
            UsageError: the text has another form.
        """
        start, arrow, end = text.partition(ARROW)
        if not arrow:
            # The shell takes the > of an unquoted 4->1 as a redirection, so that only 4- arrives here.
            hint = (
                f"; quote a schedule, '{text}>1', since the shell takes > as a redirection"
                if text.endswith("-")
                else ""
            )
            raise UsageError(f"{text!r} is neither a number nor a schedule such as '4->1'{hint}")
        try:
            return cls(float(start), float(end))
        except ValueError as error:
            raise UsageError(f"{text!r} is not a schedule; write two numbers, such as '4->1'") from error

    def __str__(self) -> str:
        """Return the text from which `parse` makes this schedule."""
        return f"{self.start!r}{ARROW}{self.end!r}"

    def at(self, epoch: int, epochs: int) -> float:
        """Return the number in an epoch (the first is 0) of a phase with ``epochs`` epochs."""
        share = epoch / (epochs - 1) if epochs > 1 else 0.0
        return self.start + (self.end - self.start) * min(share, 1.0)


def number_or_schedule(text: str) -> float | Schedule:
    """Return the number or the schedule of a text.

    Raises:
        UsageError: the text is neither.
    """
    try:
        return float(text)
    except ValueError:
        return Schedule.parse(text)
