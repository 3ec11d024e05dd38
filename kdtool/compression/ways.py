"""One way of a method to make the teacher smaller, in one precision: sized to a budget, and measured a second time."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from kdtool.compression.candidates import FLOAT, KEPT, Candidate, Ladder, Proposals
from kdtool.compression.costs import Cost, Limits, Meter
from kdtool.compression.fresh import fresh_one
from kdtool.compression.sizing import CLOSE, CLOSE_INT8, POWER, Sized, Sizing, size
from kdtool.errors import Error
from kdtool.utils.progress import progress
from kdtool.utils.verbosity import QUIET, verbosity

EXPORTS = 3
"""The most networks of a way of which the exported file is written to find one within the budget of bytes."""


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

    @property
    def close(self) -> float:
        """The part of the budget from which on a network is near enough to it."""
        return CLOSE if self.precision == FLOAT else CLOSE_INT8

    def sized(self, limits: Limits) -> Found:
        """Return the largest network within the limits, measured once."""
        from kdtool.compression.trimming import trim  # the removal of channels imports torch's compiler

        ladder, measure, close = self.ladder, self.meter.cost, self.close
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

    def between(self, found: Found, limits: Limits) -> tuple[Way, Found] | None:
        """Return how networks between two members of a family are made, and the one that just fits, measured once.

        Members have names, and stay as they are; the next larger one without some of its channels is another
        candidate. None where the member below the budget is near to it, or nothing lies in between.
        """
        from kdtool.compression.trimming import trim

        if self.ladder.trims:
            return None
        with verbosity(QUIET):
            trimmed = trim(found.sizing, self.meter.cost, limits, close=self.close)
        if trimmed is None:
            return None
        narrowing = dataclasses.replace(self, ladder=dataclasses.replace(self.ladder, trims=True))
        return narrowing, Found(found.sizing, trimmed)

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

    def exported(self, candidate: Candidate, limits: Limits) -> Candidate | None:
        """Size a candidate by its exported file; return it, a smaller one, or None if nothing is within the limits.

        The files by which it was sized have other nodes and so other bytes; the difference is about the same for one
        that is a little smaller.
        """
        tighter = limits
        for _ in range(EXPORTS):
            assert candidate.network is not None
            assert candidate.cost is not None
            before, candidate.cost = candidate.cost.file_bytes or 0, self.meter.exported(candidate.network)
            if limits.allow(candidate.cost):
                return candidate
            more = (candidate.cost.file_bytes or 0) - before
            least = min(tighter.file_bytes, limits.file_bytes - more)
            tighter = dataclasses.replace(tighter, file_bytes=max(least, 1.0))
            found = self.sized(tighter)
            smaller = self.candidate(found)
            if found.best is None or smaller is None:
                break
            candidate = smaller
        return None


def measure_again(proposals: Proposals, ways: list[tuple[Way, Candidate]], seconds: float) -> None:
    """Measure the latencies of candidates once more, and put smaller ones in the place of those that are too slow.

    After ``seconds`` of computing time those that are left stay as they were measured.
    """
    began = time.thread_time()
    with progress("measuring again", len(ways)) as advance:
        for number, (way, candidate) in enumerate(ways):
            if time.thread_time() - began > seconds:
                break
            confirmed = way.confirmed(candidate, proposals.limits)
            _replace(proposals, candidate, confirmed)
            ways[number] = way, confirmed or candidate
            advance(note=candidate.method)


def size_as_exported(proposals: Proposals, ways: list[tuple[Way, Candidate]], most: int) -> None:
    """Size the candidates that will be trained, up to ``most`` and the fresh one, by the files that are exported.

    Smaller ones take the place of those that are too large, so that none is trained that is known to be.
    """
    left = {candidate.name: way for way, candidate in ways}

    def first() -> list[Candidate]:
        fresh = fresh_one(proposals.candidates)
        return [one for one in (*proposals.chosen(most), fresh) if one is not None and one.name in left]

    with progress("writing files", len(first())) as advance:
        while candidates := first():
            candidate = candidates[0]
            way = left.pop(candidate.name)
            try:
                _replace(proposals, candidate, way.exported(candidate, proposals.limits))
            except Error as error:  # drafts are written in another way, too
                proposals.refused[f"{candidate.method} {candidate.precision}"] = str(error)
                proposals.candidates.remove(candidate)
            advance(note=candidate.method)


def _replace(proposals: Proposals, candidate: Candidate, by: Candidate | None) -> None:
    """Put a candidate, if it has no name of another one, in the place of one that is beyond the budget now."""
    if by is candidate:
        return
    place = proposals.candidates.index(candidate)
    del proposals.candidates[place]
    if by is None:
        candidate.note = ""
        proposals.beyond.append(candidate)
    elif by.name not in proposals.names:
        proposals.candidates.insert(place, by)
