"""Make a network shallower and narrower until it is within a budget.

That depth and width go together, each by its share, is the compound scaling of Tan and Le (EfficientNet, 2019,
arXiv:1905.11946), here downwards.
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

_COUNTED = {"macs": ("--target-macs", "MACs"), "parameters": ("--target-params", "parameters")}

# An edit of a large network takes seconds.
_MOST_DEPTHS, _MOST_WIDTHS = 4, 8

# How much of the limit is looked for among widths, and among depths, and what the next guess aims at.
_CLOSE, _NEAR, _AIM = 0.99, 0.98, 0.995

_LESS = (0.97, 0.94)


def reach_budget(
    network: Network,
    budget: Budget,
    *,
    count: str = "macs",
    depth_share: float = 0.5,
    round_to: int = 1,
    init: str = "fresh",
) -> Network:
    """Return a shallower and narrower copy of the network that is within the budget, and as near to it as can be.

    ``count`` says of what: ``macs`` or ``parameters``, as `measure` counts them. To get to x times the size, leaving
    out blocks brings x ** depth_share, as nearly as whole blocks can, and narrower layers bring the rest: 0 is width
    alone, 1 depth alone. The blocks are spread as `drop_blocks` does; ``round_to`` and ``init`` are those of
    `halve_widths`. A network without stages of blocks is made narrower alone.

    Raises:
        UsageError: the budget is no less than what the network has, or less than what it can be brought to.
        Error: the network does not run afterwards.
    """
    goal = _Goal.of(network, budget, count)
    if depth_share == 1:
        return _Blocks(network, goal, init).within(goal.limit).said(goal)
    best = _Made(network, goal.whole, "all blocks")
    for shallow in _shallower(best, goal, depth_share, init):
        try:
            best = max(best, _narrower(shallow, goal, round_to, init), key=goal.rank)
        except Error:
            if best.size > goal.limit:
                raise
        if _NEAR * goal.limit <= best.size <= goal.limit:
            break
    if best.size > goal.limit and depth_share > 0:
        with contextlib.suppress(Error):
            blocks = _Blocks(network, goal, init)
            best = max(best, _narrower(blocks.cut(blocks.fewest), goal, round_to, init), key=goal.rank)
    if best.size > goal.limit:
        raise goal.out_of_reach(best.size)
    return best.said(goal)


@dataclass(frozen=True)
class _Goal:
    """How much there is of what is counted, and how much there may be."""

    spec: str
    budget: Budget
    count: str
    whole: int
    limit: float

    @classmethod
    def of(cls, network: Network, budget: Budget, count: str) -> _Goal:
        whole = measure(network)[count]
        goal = cls(network.architecture.spec, budget, count, whole, budget.limit(whole))
        if goal.limit >= whole:
            flag, word = _COUNTED[count]
            raise UsageError(f"{flag} {budget}: {goal.spec} has {short(whole)} {word}; give less than that")
        return goal

    def rank(self, made: _Made) -> tuple[bool, int]:
        """Return what is the greater the better: within the limit the largest, beyond it the smallest."""
        fits = made.size <= self.limit
        return fits, made.size if fits else -made.size

    def out_of_reach(self, smallest: int) -> UsageError:
        flag, word = _COUNTED[self.count]
        return UsageError(
            f"{flag} {self.budget}: {self.spec} can be brought from {short(self.whole)} {word} down to "
            f"{short(smallest)} this way, and {short(self.limit)} is below that"
        )


@dataclass(frozen=True)
class _Made:
    """A network with its size and how it was made."""

    network: Network
    size: int
    how: str

    def said(self, goal: _Goal) -> Network:
        """Say what was reached, and return the network."""
        whole, share = short(goal.whole), self.size / goal.whole
        say(f"{goal.spec}: {self.how}: {short(self.size)} of {whole} {_COUNTED[goal.count][1]} ({share:.3g}x)")
        return self.network


def _shallower(whole: _Made, goal: _Goal, share: float, init: str) -> Iterator[_Made]:
    """Yield the network with as many blocks as bring their share, then with one more and one less.

    Where widths go in large steps, as heads of attention do, another number of blocks may come nearer.
    """
    if share == 0:
        yield whole
        return
    try:
        blocks = _Blocks(whole.network, goal, init)
        count = blocks.nearest(goal.whole * (goal.limit / goal.whole) ** share)
    except Error as error:
        say(f"{str(error).partition(';')[0]}; by width alone then")
        yield whole
        return
    for other in (count, count + 1, count - 1):
        with contextlib.suppress(Error):
            shallow = whole if other == blocks.all else blocks.cut(other) if other in blocks.guessed else None
            if shallow is not None and shallow.size > goal.limit:
                yield shallow


class _Blocks:
    """A network with fewer and fewer blocks, each made when it is asked for."""

    def __init__(self, network: Network, goal: _Goal, init: str) -> None:
        self.network, self.goal, self.init = network, goal, init
        self.stages = find_stages(network)
        self.fewest, self.all = len(self.stages), sum(len(stage.blocks) for stage in self.stages)
        self.made: dict[int, _Made] = {}
        self.guessed = {count: self._guess(count) for count in range(self.fewest, self.all)}

    def cut(self, count: int) -> _Made:
        """Return the network with ``count`` blocks."""
        if count not in self.made:
            smaller = drop_blocks(self.network, blocks=count, init=self.init)
            counts = ",".join(str(one) for one in spread(self.stages, count))
            self.made[count] = _Made(smaller, measure(smaller)[self.goal.count], f"blocks {counts}")
        return self.made[count]

    def nearest(self, target: float) -> int:
        """Return the number of blocks with which the size is above the goal's limit and nearest to ``target``."""

        def far(size: float) -> float:
            return abs(math.log(size / target)) if size > self.goal.limit else math.inf

        self._look(lambda sizes: min(sizes, key=lambda count: far(sizes[count])))
        known = {count: one.size for count, one in self.made.items()} | {self.all: self.goal.whole}
        return min(known, key=lambda count: far(known[count]))

    def within(self, limit: float) -> _Made:
        """Return the one with the most blocks that is no larger than ``limit``.

        Raises:
            UsageError: all are larger.
        """
        self._look(lambda sizes: max((count for count, size in sizes.items() if size <= limit), default=self.fewest))
        found = [count for count, one in self.made.items() if one.size <= limit]
        if not found:
            raise self.goal.out_of_reach(self.cut(self.fewest).size)
        return self.made[max(found)]

    def _look(self, choose: Callable[[dict[int, float]], int]) -> None:
        """Make what ``choose`` takes by the sizes as far as they are known, until it takes one that is there."""
        whole, factor = self.goal.whole, 1.0
        for _ in range(_MOST_DEPTHS):
            sizes = {count: whole - factor * (whole - size) for count, size in self.guessed.items()}
            sizes |= {count: float(one.size) for count, one in self.made.items()} | {self.all: float(whole)}
            count = choose({count: max(1.0, size) for count, size in sizes.items()})
            if count in self.made or count == self.all:
                return
            # What reads the channels of dense blocks gets smaller with them, which the guess does not know.
            factor = (whole - self.cut(count).size) / (whole - self.guessed[count])

    def _guess(self, count: int) -> int:
        """Return what stays of the network's size without the blocks that go."""
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
        found = macs_of_parts(self.network.module, self.network.architecture.input)
        return {path: max(1, found.get(path, 0)) for path, _ in paths}


def _narrower(shallow: _Made, goal: _Goal, round_to: int, init: str) -> _Made:
    """Return a network with narrower layers: the largest within the goal's limit, or the smallest where none is.

    Raises:
        Error: it does not run afterwards.
    """
    if shallow.size <= goal.limit:
        return shallow

    best, sizes = shallow, {1.0: shallow.size}
    # The size goes with about the square of the width.
    least = least_ratio(shallow.network)
    ratio = max(least, math.sqrt(_AIM * goal.limit / shallow.size))
    while best.size < _CLOSE * goal.limit or best.size > goal.limit:
        if len(sizes) > _MOST_WIDTHS or ratio in sizes or _is_one_width(sizes, goal.limit):
            break
        try:
            ratio, network = _halved(shallow.network, ratio, round_to, init)
        except Error:
            if best.size > goal.limit:
                raise
            break
        made = _Made(network, measure(network)[goal.count], f"{shallow.how}, widths x {ratio:.3g}")
        best, sizes[ratio] = max(best, made, key=goal.rank), made.size
        ratio = _next_ratio(sizes, goal.limit, least)
    return best


def _halved(network: Network, ratio: float, round_to: int, init: str) -> tuple[float, Network]:
    """Return a narrower network and its ratio: as told, or a little less where that does not run.

    Raises:
        Error: none of them runs.
    """
    try:
        return ratio, halve_widths(network, ratio=ratio, round_to=round_to, init=init)
    except Error as error:
        # Some networks do not take every width: an odd one is not split in two, say.
        for less in _LESS:
            with contextlib.suppress(Error):
                return ratio * less, halve_widths(network, ratio=ratio * less, round_to=round_to, init=init)
        raise error


def _next_ratio(sizes: Mapping[float, int], limit: float, least: float) -> float:
    """Return the ratio to try next: where a line through the logarithms of two ratios and sizes meets the limit."""
    above = min(ratio for ratio, size in sizes.items() if size > limit)
    below = max((ratio for ratio, size in sizes.items() if size <= limit), default=None)
    first, second = (below, above) if below is not None else sorted(sizes)[:2]
    (x, y), (x2, y2) = ((math.log(ratio), math.log(sizes[ratio])) for ratio in (first, second))
    step = (math.log(_AIM * limit) - y) / max(y2 - y, 1e-3) * (x2 - x)
    if below is None:
        return max(least, math.exp(x + step))
    # Widths are whole, so sizes go in steps: a bit off both ends.
    return math.exp(x + min(max(step, 0.1 * (x2 - x)), 0.9 * (x2 - x)))


def _is_one_width(sizes: Mapping[float, int], limit: float) -> bool:
    """Return whether the ratios on both sides of the limit are too near for another width between them."""
    above = min((ratio for ratio, size in sizes.items() if size > limit), default=1.0)
    below = max((ratio for ratio, size in sizes.items() if size <= limit), default=0.0)
    return above - below < 5e-3 * above
