"""Find the step of a ladder that just meets a budget: a bisection that follows the measured costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kdtool.compression.costs import Cost, Limits
from kdtool.errors import Error
from kdtool.models.architecture import Network

CLOSE = 0.95
"""The search ends at a step whose cost is between this part of the budget and the whole."""

CLOSE_INT8 = 0.9
"""The same for files of 8 bits, whose latency falls in jumps: more steps, and single channels, brought 2 of 11 ladders
of a ResNet-18 nearer to the budget, by 2 % at most, and took a fifth of all the time."""

AIM = 0.975

TRIES = 4
"""The most networks that are made and measured to size one ladder, one more to see how small it gets."""


POWER, LEAST_POWER = 1.5, 0.05
"""By which power of what is left of a ladder its cost falls, before anything is known; and the least that is used."""


@dataclass(frozen=True)
class Sized:
    """A step of a ladder, with its network and its cost."""

    step: int
    options: Mapping[str, Any]
    network: Network
    cost: Cost
    load: float
    """Its cost over the budget (see `Limits.load`)."""


@dataclass
class Sizing:
    """What was found of a ladder: the largest step within the budget, and the smallest cost that was seen."""

    best: Sized | None = None
    smallest: Sized | None = None
    above: Sized | None = None
    """The smallest that is beyond the budget."""
    measured: int = 0
    reasons: list[str] = field(default_factory=list)
    """Why steps could not be made."""


def size(
    ladder: list[Mapping[str, Any]],
    make: Callable[[Mapping[str, Any]], Network],
    measure: Callable[[Network, Limits], Cost],
    limits: Limits,
    *,
    whole: float,
    power: float = POWER,
    close: float = CLOSE,
) -> Sizing:
    """Return the largest network of a ladder within the limits, or as near below them as ``close``.

    ``whole`` is the load of the teacher itself, as a point before the first step. The next step to measure comes from
    a power law through the loads around the limit; that of the first one is ``power``.
    """
    sizing = Sizing()
    low, high = -1, len(ladder)  # too large, and small enough or behind the end
    loads = {-1: max(whole, 1e-9)}

    def attempt(step: int) -> Sized | None:
        try:
            network = make(ladder[step])
            sizing.measured += 1
            cost = measure(network, limits)
        except Error as error:
            sizing.reasons.append(str(error))
            return None
        tried = Sized(step, ladder[step], network, cost, limits.load(cost))
        loads[step] = tried.load
        if sizing.smallest is None or tried.load < sizing.smallest.load:
            sizing.smallest = tried
        if tried.load > 1 and (sizing.above is None or tried.load < sizing.above.load):
            sizing.above = tried
        if tried.load <= 1 and (sizing.best is None or tried.load > sizing.best.load):
            sizing.best = tried
        return tried

    for _ in range(2 * TRIES):  # a step that cannot be made takes little time
        if high - low < 2 or sizing.measured == TRIES:
            break
        step = _next(loads, low, high, len(ladder), power)
        tried = attempt(step)
        if tried is None:
            # A step that removes too little to be one is before the first real one; any other is behind the last.
            low, high = (step, high) if max(loads) < step and min(loads.values()) > 1 else (low, step)
        elif tried.load > 1:
            low = step
        elif tried.load >= close:
            break
        else:
            high = step
    if sizing.best is None and ladder and len(ladder) - 1 not in loads:
        attempt(len(ladder) - 1)
    return sizing


def _next(loads: Mapping[int, float], low: int, high: int, count: int, power: float) -> int:
    """Return the step between ``low`` and ``high`` (exclusive) that is measured next.

    The cost is taken for a power of the part of the ladder that is left: of the channels of a layer, of its MACs, ...
    The power is that between the two ends, or of the nearest point to the teacher, or ``power``.
    """
    if low not in loads:  # that step could not be made
        return (low + high) // 2
    ends = [low, high] if high in loads else [-1, low] if low != -1 else [-1]
    if len(ends) == 2:
        fall = math.log(loads[ends[0]] / loads[ends[1]])
        power = fall / math.log(_left(ends[0], count) / _left(ends[1], count))
    if power <= LEAST_POWER:
        return (low + high) // 2
    left = float(_left(ends[0], count) * (AIM / loads[ends[0]]) ** (1 / power))
    return min(max(round((1 - left) * (count + 1)) - 1, low + 1), high - 1)


def _left(step: int, count: int) -> float:
    """Return the part of a ladder that is left after a step: 1 before the first one, near 0 at the last one."""
    return 1 - (step + 1) / (count + 1)


def power_of(sizing: Sizing, whole: float, count: int) -> float | None:
    """Return the power by which the cost of a ladder fell up to the step that was taken, for the sizing of others."""
    one = sizing.best
    if one is None or not 0 < one.load < whole:
        return None
    return math.log(one.load / whole) / math.log(_left(one.step, count))
