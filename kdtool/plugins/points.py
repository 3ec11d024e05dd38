"""A loss of accuracy, in points (``1%``) or as a fraction (``0.01``)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdtool.errors import UsageError

_NUMBER = re.compile(r"(\d{1,3}(?:\.\d{0,9})?|\.\d{1,9})(%?)")


@dataclass(frozen=True)
class Points:
    """A difference of accuracies: ``fraction`` of all images, from 0 to 1."""

    fraction: float

    @classmethod
    def parse(cls, text: str) -> Points:
        """Return the difference of a text such as ``1%``, ``0.5%`` or ``0.01``.

        Raises:
            UsageError: the text has another form, or means more than all images. A number of 1 or more without % is
                refused, since it may mean points or a fraction.
        """
        match = _NUMBER.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"{text[:40]!r} is not a loss of accuracy; write points, such as 1%")
        number, percent = float(match[1]), match[2]
        if number > (100 if percent else 1) or (number == 1 and not percent):
            raise UsageError(f"{text} is not a loss of accuracy between 0 and 100 points; write points, such as 1%")
        return cls(number / 100 if percent else number)

    def __str__(self) -> str:
        """Return the text from which `parse` makes this difference."""
        return f"{self.fraction * 100:.9g}%"
