"""A number that goes from one value to another in the course of a phase (``4->1``)."""

from __future__ import annotations

from dataclasses import dataclass

from kdtool.errors import UsageError

ARROW = "->"


@dataclass(frozen=True)
class Schedule:
    """A number that is ``start`` in the first epoch of a phase and ``end`` in the last, and goes evenly between."""

    start: float
    end: float

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Return the schedule that is written as ``4->1``.

        Raises:
            UsageError: it is written otherwise.
        """
        start, arrow, end = text.partition(ARROW)
        if not arrow:
            # An unquoted 4->1 is cut by the shell, which takes > for itself.
            hint = f"; quote a schedule, '{text}>1', or the shell takes the > for itself" if text.endswith("-") else ""
            raise UsageError(f"{text!r} is no number, and no schedule such as '4->1'{hint}")
        try:
            return cls(float(start), float(end))
        except ValueError as error:
            raise UsageError(f"{text!r} is no schedule; write two numbers as '4->1'") from error

    def __str__(self) -> str:
        """Return the text that `parse` makes this schedule of."""
        return f"{self.start!r}{ARROW}{self.end!r}"

    def at(self, epoch: int, epochs: int) -> float:
        """Return the number in an epoch, counted from 0, of a phase of ``epochs``."""
        share = epoch / (epochs - 1) if epochs > 1 else 0.0
        return self.start + (self.end - self.start) * min(share, 1.0)


def number_or_schedule(text: str) -> float | Schedule:
    """Return what is written as a number or as a schedule.

    Raises:
        UsageError: it is neither.
    """
    try:
        return float(text)
    except ValueError:
        return Schedule.parse(text)
