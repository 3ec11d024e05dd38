"""How much a network may cost: a share of its present cost (``0.25x``) or an amount (``90M``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Self

from kdtool.errors import UsageError

_UNITS = {"G": 10**9, "M": 10**6, "k": 10**3, "": 1}

_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})([A-Za-z]*)")


@dataclass(frozen=True)
class Budget:
    """An upper limit of a cost: ``amount`` itself or, if ``relative``, this share of the present cost."""

    amount: float
    relative: bool = False

    units: ClassVar[Mapping[str, float]] = _UNITS
    """The amounts of one unit each, the largest first."""
    examples: ClassVar[tuple[str, str]] = ("0.25x", "90M, 250k")
    """A share and amounts, for messages."""
    least: ClassVar[float] = 1
    """The smallest amount that can be meant."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the budget of a text such as ``0.25x``, ``90M``, ``1.2G``, ``250k`` or a plain number.

        Raises:
            UsageError: the text has another form, a share is not between 0 and 1, or an amount is too small.
        """
        match = _NUMBER.fullmatch(text.strip())
        unit = None if match is None else cls._unit(match[2])
        if match is None or unit is None:
            share, amounts = cls.examples
            raise UsageError(
                f"{text[:40]!r} is not a budget; write a share of the present size ({share}) or an amount ({amounts})"
            )
        if unit == "x":
            share_of = float(match[1])
            if not 0 < share_of < 1:
                raise UsageError(
                    f"{text} is not a share below the present size; write one between 0x and 1x, such as 0.25x"
                )
            return cls(share_of, relative=True)
        amount = float(Decimal(match[1]) * Decimal(str(cls.units[unit])))
        if amount < cls.least:
            raise UsageError(
                f"{text} is not an amount of {cls.least:g} or more; write a share of the present size with an x, such "
                "as 0.25x"
            )
        return cls(amount)

    @classmethod
    def _unit(cls, text: str) -> str | None:
        """Return a unit as `units` has it, ``x`` for a share, or None if there is no such unit."""
        if text in (*cls.units, "x"):
            return text
        # MS and mb can only mean ms and MB; m alone could be a million or a thousandth.
        known = {unit.lower(): unit for unit in cls.units}
        return known.get(text.lower()) if len(text) > 1 or text == "K" else None

    def __str__(self) -> str:
        """Return the text from which `parse` makes this budget."""
        if self.relative:
            return f"{Decimal(repr(self.amount)):f}x"
        amount = Decimal(repr(self.amount))
        scales = {unit: Decimal(str(size)) for unit, size in self.units.items()}
        unit = next((unit for unit, scale in scales.items() if amount % scale == 0), [*scales][-1])
        return f"{amount / scales[unit]:f}".removesuffix(".0") + unit

    def limit(self, of: float) -> float:
        """Return the largest size within the budget, where ``of`` is the present size."""
        return self.amount * of if self.relative else self.amount

    def reached(self, size: float, of: float) -> bool:
        """Return whether ``size`` is within the budget, where ``of`` is the size before."""
        return size <= self.limit(of)


class LatencyBudget(Budget):
    """An upper limit of a latency in seconds: ``0.4x`` of that of the present network, ``5ms`` or ``800us``."""

    units: ClassVar[Mapping[str, float]] = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
    examples: ClassVar[tuple[str, str]] = ("0.4x", "5ms, 800us")
    least: ClassVar[float] = 1e-6


class SizeBudget(Budget):
    """An upper limit of a file's size in bytes: ``0.25x`` of that of the present network, ``2MB`` or ``500kB``."""

    units: ClassVar[Mapping[str, float]] = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}
    examples: ClassVar[tuple[str, str]] = ("0.25x", "2MB, 500kB")


def short(size: float) -> str:
    """Return a size as text with three digits and a unit, such as ``40.9M``."""
    unit = next((unit for unit, scale in _UNITS.items() if size >= scale), "")
    return f"{float(f'{size / _UNITS[unit]:.3g}'):g}{unit}"
