"""How much a network may cost: a share of its present cost (``0.25x``) or an amount (``90M``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from kdtool.errors import UsageError

_UNITS = {"G": 10**9, "M": 10**6, "k": 10**3, "": 1}

_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})([xkKMG]?)")


@dataclass(frozen=True)
class Budget:
    """An upper limit of a cost: ``amount`` itself or, if ``relative``, this share of the present cost."""

    amount: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Return the budget of a text such as ``0.25x``, ``90M``, ``1.2G``, ``250k`` or a plain number.

        Raises:
            UsageError: the text has another form, a share is not between 0 and 1, or an amount is below 1.
        """
        match = _NUMBER.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                f"{text[:40]!r} is not a budget; write a share of the present size (0.25x) or an amount (90M, 250k)"
            )
        number, unit = match.groups()
        if unit == "x":
            share = float(number)
            if not 0 < share < 1:
                raise UsageError(
                    f"{text} is not a share below the present size; write one between 0x and 1x, such as 0.25x"
                )
            return cls(share, relative=True)
        amount = float(Decimal(number) * _UNITS[unit.replace("K", "k")])
        if amount < 1:
            raise UsageError(
                f"{text} is not an amount of 1 or more; write a share of the present size with an x, such as 0.25x"
            )
        return cls(amount)

    def __str__(self) -> str:
        """Return the text from which `parse` makes this budget."""
        if self.relative:
            return f"{Decimal(repr(self.amount)):f}x"
        scale = next((scale for scale in _UNITS.values() if self.amount % scale == 0), 1)
        unit = next(unit for unit, size in _UNITS.items() if size == scale)
        return f"{Decimal(repr(self.amount / scale)):f}".removesuffix(".0") + unit

    def limit(self, of: float) -> float:
        """Return the largest size within the budget, where ``of`` is the present size."""
        return self.amount * of if self.relative else self.amount

    def reached(self, size: float, of: float) -> bool:
        """Return whether ``size`` is within the budget, where ``of`` is the size before."""
        return size <= self.limit(of)


def short(size: float) -> str:
    """Return a size as text with three digits and a unit, such as ``40.9M``."""
    unit = next((unit for unit, scale in _UNITS.items() if size >= scale), "")
    return f"{float(f'{size / _UNITS[unit]:.3g}'):g}{unit}"
