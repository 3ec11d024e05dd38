"""One way of a method to make the teacher smaller, in one precision: sized to a budget, and measured a second time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from kdtool.compression.candidates import FLOAT, KEPT, Candidate, Ladder
from kdtool.compression.costs import Cost, Limits, Meter
from kdtool.compression.sizing import CLOSE, CLOSE_INT8, POWER, Sized, Sizing, size
from kdtool.utils.verbosity import QUIET, verbosity


@dataclass(frozen=True)
class Found:
    """What was found of a ladder: its steps around the budget, and a network between two of them."""

    sizing: Sizing
    trimmed: tuple[Sized, float] | None = None
    """That network, with the part of the MACs that was trimmed."""

    @property
    def best(self) -> Sized | None:
        """The one nearest below the budget; None if nothing is within it."""
        return self.trimmed[0] if self.trimmed else self.sizing.best


@dataclass(frozen=True)
class Way:
    """A ladder in one precision, and how its networks are measured."""

    ladder: Ladder
    precision: str
    meter: Meter
    teacher: Cost
    """The cost of the teacher in this precision."""
    power: float = POWER
    """See `size`."""

    def sized(self, limits: Limits) -> Found:
        """Return the largest network within the limits, measured once."""
        from kdtool.compression.trimming import trim  # the removal of channels imports torch's compiler

        ladder, measure = self.ladder, self.meter.cost
        close = CLOSE if self.precision == FLOAT else CLOSE_INT8
        with verbosity(QUIET):  # a method may say for each size what it did
            whole = limits.load(self.teacher)
            sizing = size(
                list(ladder.steps), ladder.make, measure, limits, whole=whole, power=self.power, close=close
            )  # fmt: skip
            if ladder.trims and (sizing.best is None or sizing.best.load < close):
                sizing.above = ladder.with_weights(sizing.above)
            trimmed = trim(sizing, measure, limits, close=close) if ladder.trims else None
            if trimmed is None:
                sizing.best = ladder.with_weights(sizing.best)
        return Found(sizing, trimmed)

    def candidate(self, found: Found) -> Candidate | None:
        """Return what was found, or else the smallest that was seen, as a candidate; None if nothing could be made."""
        one = found.best or found.sizing.smallest
        if one is None:
            return None
        inherits = self.ladder.inherits or one.options.items() >= KEPT.items()
        part = found.trimmed[1] if found.trimmed else 0.0
        return Candidate(
            self.ladder.kind, self.ladder.method, one.options, self.precision, one.cost, one.network, inherits,
            shown=self.ladder.shown, trimmed=part,
        )  # fmt: skip

    def confirmed(self, candidate: Candidate, limits: Limits) -> Candidate | None:
        """Measure the latency of a candidate once more; return it, a smaller one, or None if nothing is within limits.

        Of many measurements that vary, those that just met the budget are too low on average. So both measurements
        count, and a candidate whose mean is beyond the budget is sized again for as much less.
        """
        assert candidate.network is not None
        candidate.cost = self.meter.again(candidate.network)
        excess = limits.load(candidate.cost)
        if excess <= 1:
            return candidate
        found = self.sized(dataclasses.replace(limits, latency_ratio=limits.latency_ratio / excess))
        return None if found.best is None else self.candidate(found)
