"""How much a network may cost: a share of what it costs now (``0.25x``), or an amount (``90M``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from kdtool.errors import UsageError

_UNITS = {"G": 10**9, "M": 10**6, "k": 10**3, "": 1}

_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})([xkKMG]?)")


@dataclass(frozen=True)
class Budget:
    """The most of something that the result may cost: ``amount`` itself, or where it is ``relative``, that share of
    what there is."""

    amount: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Return the budget that is written as ``0.25x``, ``90M``, ``1.2G``, ``250k`` or as a plain number.

        Raises:
            UsageError: it is written otherwise, is a share that is not between 0 and 1, or an amount below 1.
        """
        found = _NUMBER.fullmatch(text.strip())
        if found is None:
            raise UsageError(
                f"{text[:40]!r} is no budget; write a share of what there is (0.25x) or an amount (90M, 250k)"
            )
        number, unit = found.groups()
        if unit == "x":
            share = float(number)
            if not 0 < share < 1:
                raise UsageError(f"{text} is no share to get down to; give one between 0x and 1x, such as 0.25x")
            return cls(share, relative=True)
        amount = float(Decimal(number) * _UNITS[unit.replace("K", "k")])
        if amount < 1:
            raise UsageError(f"{text} is no amount; a share of what there is has an x behind it: 0.25x")
        return cls(amount)

    def __str__(self) -> str:
        """Return the text that `parse` makes this budget of."""
        if self.relative:
            return f"{Decimal(repr(self.amount)):f}x"
        scale = next((scale for scale in _UNITS.values() if self.amount % scale == 0), 1)
        unit = next(unit for unit, size in _UNITS.items() if size == scale)
        return f"{Decimal(repr(self.amount / scale)):f}".removesuffix(".0") + unit

    def limit(self, of: float) -> float:
        """Return the largest size within the budget of something that has the size ``of`` now."""
        return self.amount * of if self.relative else self.amount

    def reached(self, size: float, of: float) -> bool:
        """Return whether ``size`` is within the budget of something that had the size ``of``."""
        return size <= self.limit(of)


def short(size: float) -> str:
    """Return a size with three digits and its unit, such as ``40.9M``."""
    unit = next((unit for unit, scale in _UNITS.items() if size >= scale), "")
    return f"{float(f'{size / _UNITS[unit]:.3g}'):g}{unit}"
