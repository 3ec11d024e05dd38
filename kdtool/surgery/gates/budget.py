"""Which gates close, so that a budget is met and no layer is left without a channel."""

from __future__ import annotations

import torch
from torch import Tensor

from kdtool.errors import UsageError
from kdtool.plugins.budget import Budget, short
from kdtool.surgery.gates.costs import GateCosts

_FITTED = 64
"""How many of the gates that closed last are tried."""


def largest(values: Tensor, numbers: Tensor, size: int) -> Tensor:
    """Return which gates have the largest of the ``values`` [gates] among those of the same number, 0 <= number < size;
    of equal ones the first."""
    every = torch.arange(len(values), device=values.device)
    top = values.new_full((size,), -torch.inf).scatter_reduce_(0, numbers, values, "amax")
    at_top = torch.where(values == top[numbers], every, len(values))
    first = at_top.new_full((size,), len(values)).scatter_reduce_(0, numbers, at_top, "amin")
    return every == first[numbers]


def keep_last(gates: Tensor, before: Tensor, wanted: Tensor, costs: GateCosts) -> Tensor:
    """Return the new values of gates [gates], of which one in every set, and one of every group, stays open.

    Where all would close, the one that is ``wanted`` most keeps its value of ``before``.
    """
    for numbers, size in costs.kinds:
        empty = gates.new_zeros(size).scatter_reduce_(0, numbers, gates, "amax") <= 0
        # To ask whether there is one is quick on the CPU alone.
        if gates.device.type != "cpu" or bool(empty.any()):
            last = largest(torch.where(before > 0, wanted, -torch.inf), numbers, size)
            gates = torch.where(last & empty[numbers], before, gates)
    return gates


def minimal_gates(values: Tensor, costs: GateCosts) -> Tensor:
    """Return the gates that stay when all others close: the largest of every set and of every group."""
    (sets, set_count), (groups, group_count) = costs.kinds
    return largest(values, sets, set_count) | largest(values, groups, group_count)


def close_until(costs: GateCosts, is_open: Tensor, order: Tensor, limit: float) -> Tensor:
    """Return which gates are open after those in ``order``, the first ones first, are closed until the limit is met.

    No more of them than that takes: of the last ones to close, those that would still fit stay open. All of them where
    they do not suffice.
    """
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if costs.of(without(is_open, order[:middle])) <= limit:
            high = middle
        else:
            low = middle + 1
    left = without(is_open, order[:low])
    for gate in order[max(0, low - _FITTED) : max(0, low - 1)].flip(0):
        # What closed last may have saved more than was missing.
        more = left.index_fill(0, gate, True)
        if costs.of(more) <= limit:
            left = more
    return left


def without(is_open: Tensor, closing: Tensor) -> Tensor:
    """Return which gates are open once these are closed as well."""
    return is_open.scatter(0, closing, False)


def check_budget(costs: GateCosts, budget: Budget, flag: str, spec: str) -> None:
    """Check that a network can be brought to a budget by its gates; ``flag`` is the option that gave it.

    Raises:
        UsageError: it costs no more than that, or more even when every set of gates is at its least.
    """
    word = "MACs" if costs.count == "macs" else "parameters"
    if budget.reached(costs.total, costs.total):
        raise UsageError(f"{flag} {budget}: {spec} has {short(costs.total)} {word}; give less than that")
    smallest = costs.of(minimal_gates(costs.per_gate.new_ones(costs.gates), costs))
    if not budget.reached(smallest, costs.total):
        width = "one channel" if costs.round_to == 1 else f"{costs.round_to} channels (--round-to)"
        raise UsageError(
            f"{flag} {budget}: with {width} per layer {spec} still has {short(smallest)} {word}, and "
            f"{short(budget.limit(costs.total))} is below that"
        )
