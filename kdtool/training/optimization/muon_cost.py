"""What Muon's own arithmetic costs, beside that of the step."""

from __future__ import annotations

from torch import nn

# timm's number of iterations of Newton and Schulz, each of three products of matrices.
ITERATIONS = 5

# Beyond this share of a step's operations, Muon costs more time than it saves; it took twice this share of the seconds.
WORTH = 0.2


def muon_operations(module: nn.Module) -> int:
    """Return the multiplications and additions of Muon in one step, for the matrices and convolutions of a network.

    A weight of m x n numbers, m <= n, costs 2 (2 m^2 n + m^3) in each iteration: X X^T, its square, and the product
    with X. Depthwise convolutions and vectors cost almost nothing.
    """
    total = 0
    for weight in module.parameters():
        if weight.ndim < 2 or 1 in weight.shape[:2] or not weight.requires_grad:
            continue
        rows, columns = weight.shape[0], weight[0].numel()
        small, large = min(rows, columns), max(rows, columns)
        total += ITERATIONS * 2 * (2 * small**2 * large + small**3)
    return total


def muon_pays(module: nn.Module, macs: int) -> bool:
    """Return whether Muon's arithmetic is a small part of a step, whose forward pass has ``macs`` of them.

    The backward pass has twice as many.
    """
    return muon_operations(module) <= WORTH * 6 * macs
