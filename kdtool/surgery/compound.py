"""Make a network shallower and narrower until it is within a budget.

Depth and width each bring a share of the reduction. This is the compound scaling of Tan and Le (EfficientNet, 2019,
arXiv:1905.11946), used here to make networks smaller.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.models.size import macs_of_parts, measure
from kdtool.plugins.budget import Budget, short
from kdtool.surgery.depth.drop import drop_blocks, find_stages, left_out, spread
from kdtool.surgery.width.halve import halve_widths, least_ratio
from kdtool.utils.progress import say

# The option that sets a budget and the unit, by what is counted.
_COUNTED = {"macs": ("--target-macs", "MACs"), "parameters": ("--target-params", "parameters")}

# Each depth and width that is tried needs an edit, which takes seconds for a large network.
_MAX_DEPTHS, _MAX_WIDTHS = 4, 8

# Fractions of the limit. The search over widths ends above the first one, the search over depths above the second one.
# The next width aims at the third one.
_WIDTH_DONE, _DEPTH_DONE, _AIM = 0.99, 0.98, 0.995

# Factors for a ratio that does not work.
_RETRY_FACTORS = (0.97, 0.94)


def reach_budget(
    network: Network,
    budget: Budget,
    *,
    count: str = "macs",
    depth_share: float = 0.5,
    round_to: int = 1,
    init: str = "fresh",
) -> Network:
    """Return a shallower and narrower copy of the network that is within the budget, and as close to it as possible.

    ``count`` is what the budget limits: ``macs`` or ``parameters``, as `measure` counts them. To reach x times the
    size, leaving out blocks brings the size to about x ** depth_share, and narrower layers bring the rest. A
    ``depth_share`` of 0 changes widths only, 1 depth only. The blocks are chosen as in `drop_blocks`; ``round_to`` and
    ``init`` are those of `halve_widths`. A network without stages of blocks is only made narrower.

    Raises:
        UsageError: the budget is not below the size of the network, or is below the smallest size that can be reached.
        Error: the network does not run afterwards.
    """
    goal = _Goal.of(network, budget, count)
    if depth_share == 1:
        return _DepthSearch(network, goal, init).within(goal.limit).announce(goal)
    best = _Candidate(network, goal.whole, "all blocks")
    for shallow in _shallower(best, goal, depth_share, init):
        try:
            best = max(best, _narrower(shallow, goal, round_to, init), key=goal.rank)
        except Error:
            if best.size > goal.limit:
                raise
        if _DEPTH_DONE * goal.limit <= best.size <= goal.limit:
            break
    if best.size > goal.limit and depth_share > 0:
        with contextlib.suppress(Error):
            search = _DepthSearch(network, goal, init)
            best = max(best, _narrower(search.cut(search.fewest), goal, round_to, init), key=goal.rank)
    if best.size > goal.limit:
        raise goal.out_of_reach(best.size)
    return best.announce(goal)


@dataclass(frozen=True)
class _Goal:
    """The size to reach, in MACs or parameters."""

    spec: str
    budget: Budget
    count: str
    """``macs`` or ``parameters``."""
    whole: int
    """The size of the whole network."""
    limit: float
    """The largest size within the budget."""

    @classmethod
    def of(cls, network: Network, budget: Budget, count: str) -> _Goal:
        """Return the goal for a network; a budget that the network already meets is a `UsageError`."""
        whole = measure(network)[count]
        goal = cls(network.architecture.spec, budget, count, whole, budget.limit(whole))
        if goal.limit >= whole:
            flag, word = _COUNTED[count]
            raise UsageError(f"{flag} {budget}: {goal.spec} has {short(whole)} {word}; give less than that")
        return goal

    def rank(self, candidate: _Candidate) -> tuple[bool, int]:
        """Return a key that is greater for a better candidate: the largest within the limit, else the smallest."""
        fits = candidate.size <= self.limit
        return fits, candidate.size if fits else -candidate.size

    def out_of_reach(self, smallest: int) -> UsageError:
        """Return the error for a limit below the ``smallest`` size that can be reached."""
        flag, word = _COUNTED[self.count]
        return UsageError(
            f"{flag} {self.budget}: {self.spec} can be brought from {short(self.whole)} {word} down to "
            f"{short(smallest)} this way, and {short(self.limit)} is below that"
        )


@dataclass(frozen=True)
class _Candidate:
    """A network with its size and a description of how it was made."""

    network: Network
    size: int
    how: str

    def announce(self, goal: _Goal) -> Network:
        """Print the size that was reached, and return the network."""
        whole, share = short(goal.whole), self.size / goal.whole
        say(f"{goal.spec}: {self.how}: {short(self.size)} of {whole} {_COUNTED[goal.count][1]} ({share:.3g}x)")
        return self.network


def _shallower(whole: _Candidate, goal: _Goal, share: float, init: str) -> Iterator[_Candidate]:
    """Yield the network with the number of blocks that brings the share of depth, then with one more and one less.

    Where widths only change in large steps, as in attention, another number of blocks may come closer to the limit.
    """
    if share == 0:
        yield whole
        return
    try:
        search = _DepthSearch(whole.network, goal, init)
        count = search.nearest(goal.whole * (goal.limit / goal.whole) ** share)
    except Error as error:
        say(f"{str(error).partition(';')[0]}; only its widths change")
        yield whole
        return
    for other in (count, count + 1, count - 1):
        with contextlib.suppress(Error):
            shallow = whole if other == search.all else search.cut(other) if other in search.estimates else None
            if shallow is not None and shallow.size > goal.limit:
                yield shallow


class _DepthSearch:
    """Candidates with different numbers of blocks, each made when it is needed, because making one takes time."""

    def __init__(self, network: Network, goal: _Goal, init: str) -> None:
        self.network, self.goal, self.init = network, goal, init
        self.stages = find_stages(network)
        self.fewest, self.all = len(self.stages), sum(len(stage.blocks) for stage in self.stages)
        self.made: dict[int, _Candidate] = {}
        self.estimates = {count: self._estimate(count) for count in range(self.fewest, self.all)}

    def cut(self, count: int) -> _Candidate:
        """Return the network with ``count`` blocks."""
        if count not in self.made:
            smaller = drop_blocks(self.network, blocks=count, init=self.init)
            counts = ",".join(str(stay) for stay in spread(self.stages, count))
            self.made[count] = _Candidate(smaller, measure(smaller)[self.goal.count], f"blocks {counts}")
        return self.made[count]

    def nearest(self, target: float) -> int:
        """Return the number of blocks with which the size is above the goal's limit and closest to ``target``."""

        def distance(size: float) -> float:
            return abs(math.log(size / target)) if size > self.goal.limit else math.inf

        self._make_chosen(lambda sizes: min(sizes, key=lambda count: distance(sizes[count])))
        known = {count: candidate.size for count, candidate in self.made.items()} | {self.all: self.goal.whole}
        return min(known, key=lambda count: distance(known[count]))

    def within(self, limit: float) -> _Candidate:
        """Return the candidate with the most blocks that is not larger than ``limit``.

        Raises:
            UsageError: all candidates are larger.
        """
        self._make_chosen(
            lambda sizes: max((count for count, size in sizes.items() if size <= limit), default=self.fewest)
        )
        fitting = [count for count, candidate in self.made.items() if candidate.size <= limit]
        if not fitting:
            raise self.goal.out_of_reach(self.cut(self.fewest).size)
        return self.made[max(fitting)]

    def _make_chosen(self, choose: Callable[[dict[int, float]], int]) -> None:
        """Make the candidates that ``choose`` returns, until it returns one whose size is known.

        ``choose`` gets the size by number of blocks: the size of candidates that were made, else an estimate, which is
        corrected after each candidate.
        """
        whole, factor = self.goal.whole, 1.0
        for _ in range(_MAX_DEPTHS):
            sizes = {count: whole - factor * (whole - size) for count, size in self.estimates.items()}
            sizes |= {count: float(candidate.size) for count, candidate in self.made.items()} | {self.all: float(whole)}
            count = choose({count: max(1.0, size) for count, size in sizes.items()})
            if count in self.made or count == self.all:
                return
            # The layers that read the channels of dense blocks get smaller as well, which the estimate ignores.
            factor = (whole - self.cut(count).size) / (whole - self.estimates[count])

    def _estimate(self, count: int) -> int:
        """Return the size of the network minus the sizes of the blocks that are left out."""
        gone = [
            block
            for stage, stay in zip(self.stages, spread(self.stages, count), strict=True)
            for block in left_out(stage, stay)
        ]
        return self.goal.whole - sum(self._sizes[block] for block in gone)

    @functools.cached_property
    def _sizes(self) -> dict[str, int]:
        """The size of every block, at least 1."""
        paths = [
            (path, size) for stage in self.stages for path, size in zip(stage.blocks, stage.parameters, strict=True)
        ]
        if self.goal.count == "parameters":
            return {path: max(1, size) for path, size in paths}
        macs = macs_of_parts(self.network.module, self.network.architecture.input)
        return {path: max(1, macs.get(path, 0)) for path, _ in paths}


def _narrower(shallow: _Candidate, goal: _Goal, round_to: int, init: str) -> _Candidate:
    """Return a candidate with narrower layers: the largest within the goal's limit, or the smallest if none is.

    Raises:
        Error: no candidate within the limit was found, and the last one does not run.
    """
    if shallow.size <= goal.limit:
        return shallow

    best, sizes = shallow, {1.0: shallow.size}
    least = least_ratio(shallow.network)
    # The size is about proportional to the square of the width.
    ratio = max(least, math.sqrt(_AIM * goal.limit / shallow.size))
    while best.size < _WIDTH_DONE * goal.limit or best.size > goal.limit:
        if len(sizes) > _MAX_WIDTHS or ratio in sizes or _is_no_width_between(sizes, goal.limit):
            break
        try:
            ratio, network = _narrowed_about(shallow.network, ratio, round_to, init)
        except Error:
            if best.size > goal.limit:
                raise
            break
        candidate = _Candidate(network, measure(network)[goal.count], f"{shallow.how}, widths x {ratio:.3g}")
        best, sizes[ratio] = max(best, candidate, key=goal.rank), candidate.size
        ratio = _next_ratio(sizes, goal.limit, least)
    return best


def _narrowed_about(network: Network, ratio: float, round_to: int, init: str) -> tuple[float, Network]:
    """Return a narrower network and its ratio: ``ratio``, or a slightly smaller one if that does not run.

    Raises:
        Error: none of them runs; the error is that of ``ratio``.
    """
    try:
        return ratio, halve_widths(network, ratio=ratio, round_to=round_to, init=init)
    except Error as error:
        # Some networks do not run with every width: an odd one cannot be split in two, for example.
        for factor in _RETRY_FACTORS:
            with contextlib.suppress(Error):
                return ratio * factor, halve_widths(network, ratio=ratio * factor, round_to=round_to, init=init)
        raise error


def _next_ratio(sizes: Mapping[float, int], limit: float, least: float) -> float:
    """Return the ratio to try next, by linear interpolation between the logarithms of two ratios and their sizes.

    The interpolation is between the ratios next to the limit on both sides, or the two smallest if all are above it.
    """
    above = min(ratio for ratio, size in sizes.items() if size > limit)
    below = max((ratio for ratio, size in sizes.items() if size <= limit), default=None)
    first, second = (below, above) if below is not None else sorted(sizes)[:2]
    (x, y), (x2, y2) = ((math.log(ratio), math.log(sizes[ratio])) for ratio in (first, second))
    step = (math.log(_AIM * limit) - y) / max(y2 - y, 1e-3) * (x2 - x)
    if below is None:
        return max(least, math.exp(x + step))
    # Widths are whole numbers, so sizes change in steps: keep some distance from both ratios that are known.
    return math.exp(x + min(max(step, 0.1 * (x2 - x)), 0.9 * (x2 - x)))


def _is_no_width_between(sizes: Mapping[float, int], limit: float) -> bool:
    """Return whether the ratios on both sides of the limit are too close for another width between them."""
    above = min((ratio for ratio, size in sizes.items() if size > limit), default=1.0)
    below = max((ratio for ratio, size in sizes.items() if size <= limit), default=0.0)
    return above - below < 5e-3 * above
