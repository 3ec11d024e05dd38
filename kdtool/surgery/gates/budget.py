"""Choose the gates to close so that a budget is met and each layer keeps a channel."""

from __future__ import annotations

import torch
from torch import Tensor

from kdtool.errors import UsageError
from kdtool.plugins.budget import Budget, short
from kdtool.surgery.gates.costs import GateCosts

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
    """Return new values of gates [gates] with at least one open gate in every set and in every group.

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
    """Return a mask [gates] of the gates that always stay: the largest one of every set and of every group."""
    (sets, set_count), (groups, group_count) = costs.kinds
    return largest(values, sets, set_count) | largest(values, groups, group_count)


def close_until(costs: GateCosts, is_open: Tensor, order: Tensor, limit: float) -> Tensor:
    """Return a mask [gates] of the open gates after closing gates in this order until the limit is met.

    ``order`` holds indices of gates, the first ones to close first, and ``limit`` is a cost in MACs or parameters. Of
    the gates that closed last, those that still fit are opened again. If closing all gates in ``order`` is not enough,
    all of them are closed.
    """
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if costs.of(without(is_open, order[:middle])) <= limit:
            high = middle
        else:
            low = middle + 1
    remaining = without(is_open, order[:low])
    for gate in order[max(0, low - _REOPENED) : max(0, low - 1)].flip(0):
        # The gate that closed last may have saved more than was necessary.
        reopened = remaining.index_fill(0, gate, True)
        if costs.of(reopened) <= limit:
            remaining = reopened
    return remaining


def without(is_open: Tensor, closing: Tensor) -> Tensor:
    """Return the mask [gates] of open gates with the gates at the indices ``closing`` closed as well."""
    return is_open.scatter(0, closing, False)


def check_budget(costs: GateCosts, budget: Budget, flag: str, spec: str) -> None:
    """Check that closing gates can bring a network to a budget; ``flag`` is the option that sets the budget.

    Raises:
        UsageError: the network is within the budget already, or exceeds it even with the minimum of open gates.
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
