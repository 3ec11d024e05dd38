"""Choose the gates to close so that a budget is met and each layer keeps a channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdtool.errors import UsageError
from kdtool.plugins.budget import Budget, short
from kdtool.surgery.gates.costs import GateCosts

CLOSE = 0.01
"""How far below its limit a cost may stay, as a fraction of it, before columns are added one by one."""

_REOPENED = 64
"""For how many of the gates that closed last it is tested whether they fit when they are open."""


def largest(values: Tensor, numbers: Tensor, size: int) -> Tensor:
    """Return a mask [gates] of the gate with the largest value for each number; of equal values, the first gate.

    ``values`` are [gates], ``numbers`` [gates] the number of each gate's set or group, 0 <= number < size.
    """
    every = torch.arange(len(values), device=values.device)
    top = values.new_full((size,), -torch.inf).scatter_reduce_(0, numbers, values, "amax")
    at_top = torch.where(values == top[numbers], every, len(values))
    first = at_top.new_full((size,), len(values)).scatter_reduce_(0, numbers, at_top, "amin")
    return every == first[numbers]


def keep_last(gates: Tensor, before: Tensor, wanted: Tensor, costs: GateCosts) -> Tensor:
    """Return new values of gates [gates] with at least one open gate in every set, group and part of a group.

    Where all gates would close, the gate with the largest value in ``wanted`` [gates] keeps its value of ``before``
    [gates].
    """
    for numbers, size in costs.kinds:
        empty = gates.new_zeros(size).scatter_reduce_(0, numbers, gates, "amax") <= 0
        # Testing for an empty set is only quick on the CPU: on other devices the test waits for the device.
        if gates.device.type != "cpu" or bool(empty.any()):
            last = largest(torch.where(before > 0, wanted, -torch.inf), numbers, size)
            gates = torch.where(last & empty[numbers], before, gates)
    return gates


def minimal_gates(values: Tensor, costs: GateCosts) -> Tensor:
    """Return a mask [gates] of the gates that always stay: the largest one of every set, group and part of a group."""
    masks = [largest(values, numbers, size) for numbers, size in costs.kinds]
    return torch.stack(masks).any(0)


def close_until(costs: GateCosts, is_open: Tensor, order: Tensor, limit: float) -> Tensor:
    """Return a mask [gates] of the open gates after closing gates in this order until the limit is met.

    ``order`` holds indices of gates, the first ones to close first, and ``limit`` is a cost in MACs or parameters. Of
    the gates that closed last, those that still fit are opened again. If closing all gates in ``order`` is not enough,
    all of them are closed.
    """
    low = _fewest(costs.of, is_open, order, limit)
    remaining = without(is_open, order[:low])
    for gate in order[max(0, low - _REOPENED) : max(0, low - 1)].flip(0):
        # The gate that closed last may have saved more than was necessary.
        reopened = remaining.index_fill(0, gate, True)
        if costs.of(reopened) <= limit:
            remaining = reopened
    return remaining


def _fewest(cost: Callable[[Tensor], float], is_open: Tensor, order: Tensor, limit: float) -> int:
    """Return how many of the gates in ``order`` have to close, at least, for a cost within the limit."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if cost(without(is_open, order[:middle])) <= limit:
            high = middle
        else:
            low = middle + 1
    return low


def fill_up(costs: GateCosts, kept: Tensor, needed: Tensor, limit: float) -> Tensor:
    """Return a mask [gates] of the kept columns with as many others as fit into the limit, the most needed first.

    ``needed`` [gates] is larger for gates that are needed more. Columns are added in blocks of ``costs.rounding`` of a
    set. If the cost stays more than `CLOSE` below the limit, because no further block fits, they are also added one by
    one, and then exchanged: one more of a set for some of others that are needed less.
    """
    single = [1] * costs.set_count
    for blocks in [costs.rounding] if costs.rounding == single else [costs.rounding, single]:
        if costs.of_kept(kept) < (1 - CLOSE) * limit:
            kept = _filled(costs, kept, needed, limit, blocks)
    return kept if costs.of_kept(kept) >= (1 - CLOSE) * limit else _exchanged(costs, kept, needed, limit)


def _exchanged(costs: GateCosts, kept: Tensor, needed: Tensor, limit: float) -> Tensor:
    """Return the mask whose cost is nearest below the limit of those with one more column of a set and fewer others."""
    best = kept
    for number in range(costs.set_count):
        closed = ((costs.sets == number) & ~kept).nonzero().flatten()
        if not len(closed):
            continue
        larger = kept.index_fill(0, closed[needed[closed].argmax()], True)
        stays = minimal_gates(torch.where(kept, needed, -torch.inf), costs) | (costs.sets == number)
        others = (kept & ~stays).nonzero().flatten()
        order = others[needed[others].argsort(stable=True)]
        trial = without(larger, order[: _fewest(costs.of_kept, larger, order, limit)])
        if costs.of_kept(trial) > limit:
            continue
        trial = _filled(costs, trial, needed, limit, [1] * costs.set_count)
        if costs.of_kept(trial) > costs.of_kept(best):
            best = trial
    return best


def _filled(costs: GateCosts, kept: Tensor, needed: Tensor, limit: float, sizes: Sequence[int]) -> Tensor:
    """Return a mask with blocks of columns of a set added as long as they fit, the most needed first.

    ``sizes`` holds for each set how many columns a block has.
    """
    left = set(range(costs.set_count))
    blocks: dict[int, tuple[float, Tensor]] = {}
    while left:
        for number in left - set(blocks):
            closed = ((costs.sets == number) & ~kept).nonzero().flatten()
            chosen = closed[needed[closed].argsort(descending=True, stable=True)[: sizes[number]]]
            blocks[number] = (float(needed[chosen].mean()) if len(chosen) else -torch.inf, chosen)
        best = max(left, key=lambda number: (blocks[number][0], -number))
        _, chosen = blocks.pop(best)
        larger = kept.index_fill(0, chosen, True)
        if not len(chosen) or costs.of_kept(larger) > limit:
            left.discard(best)
        else:
            kept = larger
    return kept


def without(is_open: Tensor, closing: Tensor) -> Tensor:
    """Return the mask [gates] of open gates with the gates at the indices ``closing`` closed as well."""
    return is_open.scatter(0, closing, False)


def check_budget(costs: GateCosts, budget: Budget, flag: str, spec: str) -> None:
    """Check that closing gates can bring a network to a budget; ``flag`` is the option that sets the budget.

    Raises:
        UsageError: the network is within the budget already, or exceeds it even with the minimum of open gates; the
            message says if that is because gates cannot stand on most of its channels.
    """
    word = "MACs" if costs.count == "macs" else "parameters"
    if budget.reached(costs.total, costs.total):
        raise UsageError(f"{flag} {budget}: {spec} has {short(costs.total)} {word}; give less than that")
    smallest = costs.of(minimal_gates(costs.per_gate.new_ones(costs.gates), costs))
    if not budget.reached(smallest, costs.total):
        if not budget.reached(costs.fixed, costs.total):
            raise UsageError(
                f"{flag} {budget}: gates can remove no more than {1 - smallest / costs.total:.2%} of the "
                f"{short(costs.total)} {word} of {spec}: they cannot stand on its other channels; use a pruner of "
                "channels (filter-l1) or a refiner"
            )
        width = "one channel" if costs.round_to == 1 else f"{costs.round_to} channels (--round-to)"
        raise UsageError(
            f"{flag} {budget}: with {width} per layer {spec} still has {short(smallest)} {word}, and "
            f"{short(budget.limit(costs.total))} is below that"
        )
