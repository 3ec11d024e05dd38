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

AIM = 0.975

TRIES = 6
"""The most networks that are made and measured to size one ladder, one more to see how small it gets."""


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
    hint: int | None = None,
) -> Sizing:
    """Return the largest network of a ladder within the limits, or as near below them as `CLOSE`.

    ``whole`` is the load of the teacher itself, as a point before the first step. The next step to measure comes from
    a straight line through the logarithms of the loads around the limit, beginning at ``hint``.
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
        if tried.load <= 1 and (sizing.best is None or tried.load > sizing.best.load):
            sizing.best = tried
        return tried

    for _ in range(TRIES):
        if high - low < 2:
            break
        step = _next(loads, low, high, len(ladder), hint)
        hint = None
        tried = attempt(step)
        if tried is None:
            # A step that removes too little to be one is before the first real one; any other is behind the last.
            low, high = (step, high) if max(loads) < step and min(loads.values()) > 1 else (low, step)
        elif tried.load > 1:
            low = step
        elif tried.load >= CLOSE:
            break
        else:
            high = step
    if sizing.best is None and ladder and len(ladder) - 1 not in loads:
        attempt(len(ladder) - 1)
    return sizing


def _next(loads: Mapping[int, float], low: int, high: int, count: int, hint: int | None) -> int:
    """Return the step between ``low`` and ``high`` (exclusive) that is measured next."""
    if hint is not None and low < hint < high:
        return hint
    if high in loads and low in loads:
        first, last = math.log(loads[low]), math.log(loads[high])
        if first > last:
            place = low + (high - low) * (first - math.log(AIM)) / (first - last)
            return min(max(round(place), low + 1), high - 1)
    others = [step for step in loads if step < low]
    if low in loads and others:  # nothing small enough yet: follow the line of the last two
        before = max(others)
        slope = (math.log(loads[before]) - math.log(loads[low])) / (low - before)
        if slope > 0:
            ahead = math.ceil((math.log(loads[low]) - math.log(AIM)) / slope)
            return min(low + max(ahead, 1), high - 1)
    if low == -1 and high == count and loads[-1] > 1:
        # Costs fall about as the square of what is left: the share that has to go, of a ladder from all to nothing.
        return min(int(count * (1 - math.sqrt(AIM / loads[-1]))), high - 1)
    return (low + high) // 2
