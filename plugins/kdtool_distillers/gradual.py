"""Importance and order of gates that stay 0 or 1 and close step by step, as pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 1e-12
"""The smallest alpha that a score is divided by: gates with an alpha of 0 close last."""


def squared_effect(gates: Tensor, gradient: Tensor) -> Tensor:
    """Return (g * dL/dg)^2 [gates], what closing a gate changes the loss by, squared, to first order.

    Molchanov, Mallya, Tyree, Frosio and Kautz (2019), arXiv:1906.10771, Equation 8, for gates in place of weights.
    """
    return (gates * gradient).square()


def need(scores: Tensor, alpha: Tensor) -> Tensor:
    """Return score / alpha [gates], how much each gate is needed for what it costs."""
    return scores / alpha.clamp_min(LEAST)


def running_mean(mean: Tensor, value: Tensor, k: int, steps: int) -> Tensor:
    """Return mean + (value - mean) / min(k, steps), with k = 1, 2, ... the number of values so far.

    It is the mean of all values up to the number ``steps``, and an exponential mean over about as many from then on.
    """
    return mean + (value - mean) / min(k, steps)


def closing_order(
    scores: Tensor, alpha: Tensor, closable: Tensor, is_open: Tensor, sets: Tensor, round_to: Tensor | int
) -> Tensor:
    """Return the indices of the gates that may close, those to close first at the beginning.

    ``scores`` and ``alpha`` are the need and the relative cost of each gate, ``closable`` and ``is_open`` masks, and
    ``sets`` the number of each gate's set, all [gates]. A set keeps multiples of ``round_to`` gates, of an own number
    for each set if it is a tensor [sets], so its open gates close in blocks: sorted by score / alpha, the first
    ``round_to`` stay, and each further ``round_to`` are a block. Blocks are sorted by the sum of their scores over the
    sum of their alphas. With ``round_to`` 1 this is the order of score / alpha.
    """
    import torch

    needed = torch.where(closable, need(scores, alpha), torch.inf)
    needed = torch.where(is_open, needed, -torch.inf)
    order = needed.argsort(descending=True, stable=True)
    order = order[sets[order].argsort(stable=True)]
    of_set = sets[order]
    sizes = torch.bincount(of_set)
    place = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[of_set]
    size = torch.as_tensor(round_to, device=order.device).expand(len(sizes))[of_set]
    block = of_set * (len(order) + 1) + place // size
    block = block.unique(return_inverse=True)[1]
    closing = closable[order] & is_open[order] & (place >= size)
    total = torch.zeros(2, int(block.max()) + 1, dtype=torch.double, device=order.device)
    for row, values in zip(total, (scores, alpha), strict=True):
        row.index_add_(0, block, torch.where(closing, values[order].double(), 0))
    ratio = need(*total)[block]
    order, ratio = order[closing], ratio[closing]
    return order[ratio.argsort(stable=True)]
