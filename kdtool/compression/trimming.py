"""Bring a candidate nearer to the budget than the steps of its ladder allow.

Where widths are rounded or blocks are dropped, a step of a ladder can be far below the budget, and the one before it
above. Then single channels are removed from the larger one, those with the smallest weights, until it just fits.
"""

from __future__ import annotations

from collections.abc import Callable

from torch_pruning.pruner.importance import GroupMagnitudeImportance

from kdtool.compression.costs import Cost, Limits
from kdtool.compression.sizing import AIM, CLOSE, Sized, Sizing
from kdtool.errors import Error
from kdtool.models.architecture import Network
from kdtool.models.size import macs
from kdtool.pruning.sizing import round_to
from kdtool.surgery.channels.remove import remove_channels
from kdtool.surgery.slicing.inherited import InheritedNetwork, composed

TRIES = 3
"""The most networks that are made and measured to trim one candidate."""

MOST = 0.35
"""The largest part of the multiply-accumulates that is trimmed behind the last step of a ladder, where more is what
another method is for. Between two steps it may be more: those of narrow networks are far apart."""

FINER = 4
"""How many times finer layers are cut where the usual multiple of channels is too coarse."""

LEAST = 0.02
"""Two steps that differ in a smaller part of their multiply-accumulates have nothing worth a measurement in between."""

STEEPEST = 3.0
"""Where a cost falls by more than this power of the multiply-accumulates, it jumps: other code runs narrower layers,
as with files of 8 bits. Then nothing lies in between."""

EDGE = 0.1
"""How near to an end of an interval its next point may be, as a part of the interval."""


def trim(
    sizing: Sizing, measure: Callable[[Network, Limits], Cost], limits: Limits, *, close: float = CLOSE
) -> tuple[Sized, float] | None:
    """Return a network between the two steps of a ladder around the budget, and the part of the MACs that was trimmed.

    It costs more than the step that was taken, in the limit that is hardest to meet and in MACs, and is within the
    limits. None if that step is as near to them as ``close``, or nothing better was found.
    """
    above, best = sizing.above, sizing.best
    if above is None or (best is not None and best.load >= close):
        return None
    whole = above.cost.macs
    low, high = (0.0, above.load), (MOST, best.load if best else above.load * (1 - MOST))
    if best is not None:
        high = (min(1 - best.cost.macs / whole, 1 - 1e-9), best.load)
    jumps = best is not None and low[1] / high[1] > (1 - high[0]) ** -STEEPEST
    if high[0] <= LEAST or high[1] >= 1 or jumps:
        return None
    found: tuple[Sized, float] | None = None
    unit, seen = round_to(above.network), {0.0}
    for _ in range(TRIES):
        asked = _between(low, high)
        network, part = _cut(above.network, asked, unit, whole)
        if network is None or part in seen or not low[0] < part < high[0]:
            if unit == 1:
                break
            unit = max(unit // FINER, 1)
            continue
        seen.add(part)
        try:
            cost = measure(network, limits)
        except Error:
            break
        load = limits.load(cost)
        if load > 1:
            low = (part, load)
            continue
        if best is None or load > best.load:
            found = Sized(above.step, above.options, network, cost, load), part
        if load >= close:
            break
        high = (part, load)
    return found


def _between(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Return the part to trim between two (part, load), where a straight line through them has `AIM`."""
    share = (low[1] - AIM) / (low[1] - high[1]) if low[1] > high[1] else 0.5
    return low[0] + (high[0] - low[0]) * min(max(share, EDGE), 1 - EDGE)


def _cut(network: Network, ratio: float, unit: int, whole: int) -> tuple[Network | None, float]:
    """Return a network without about ``ratio`` of its MACs, and the part that is gone; None if it cannot be made."""
    norm = GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer="mean")
    try:
        cut = remove_channels(network, ratio=ratio, of="macs", importance=norm, round_to=unit).network
    except Error:
        return None, 0.0
    part = 1 - macs(cut.module, cut.architecture.input) / whole
    if isinstance(network, InheritedNetwork):
        return composed(cut, network), part
    # Which channels of the teacher the network kept is not known, and so not of what is left either.
    return Network(cut.architecture, cut.module), part
