"""Least squares with a ridge: the weights with which a layer returns from fewer channels what it returned from all.

He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Neural Networks, 2017, arXiv:1707.06168, and Luo, Wu and
Lin, ThiNet, 2017, arXiv:1707.06342. In difference to both, the ridge pulls towards the weights that were kept and not
towards zero, and images that are held out choose its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-6, 1e-4, 1e-2, 1.0)
"""The ridges that are tried, as fractions of the mean of the diagonal of X^T X."""

HELD_OUT = 4
"""The last row of so many is held out to choose the ridge."""


@dataclass(frozen=True)
class Correction:
    """The change of a layer's weight and bias, and the mean squared errors before and after it on held-out rows."""

    weight: Tensor
    """[groups, inputs, outputs]."""
    bias: Tensor
    """[groups, 1, outputs]; zero where the layer has no bias."""
    ridge: float
    before: float
    after: float


def ridge_regressions(x: Tensor, y: Tensor, ridges: Sequence[float]) -> Iterator[Tensor]:
    """Yield for each ridge the D that minimises |X D - Y|^2 + k |D|^2, k = ridge times the mean diagonal of X^T X.

    D = (X^T X + k I)^-1 X^T Y, or X^T (X X^T + k I)^-1 Y where there are fewer rows than inputs. ``x`` is
    [groups, rows, inputs] and ``y`` [groups, rows, outputs], both float64; D is [groups, inputs, outputs].
    """
    rows, inputs = x.shape[-2:]
    wide = inputs > rows
    square, right = (x @ x.mT, y) if wide else (x.mT @ x, x.mT @ y)
    diagonal = x.square().sum((-2, -1)) / inputs
    for ridge in ridges:
        # A channel that is always 0 has no k of its own: its D is then 0.
        k = (ridge * diagonal).clamp_min(torch.finfo(torch.float64).tiny ** 0.5)
        regular = square + torch.diag_embed(k[:, None].expand(-1, square.shape[-1]))
        solved = torch.cholesky_solve(right, torch.linalg.cholesky(regular))
        yield x.mT @ solved if wide else solved


def correction(x: Tensor, missing: Tensor, *, biased: bool, free: Tensor) -> Correction | None:
    """Return the change of a layer that brings its outputs closest to those of the layer that it was cut from.

    ``x`` [groups, rows, inputs] is what the layer reads and ``missing`` [groups, rows, outputs] what its outputs lack,
    both float64 and in the order of the images. With ``biased`` the bias changes too. ``free`` [groups, inputs,
    outputs] is False for weights that stay. The ridge is fitted on the first three quarters of the rows. That with the
    least error on the last quarter is used for all rows. None if no ridge makes that error smaller.
    """
    split = x.shape[1] - max(1, x.shape[1] // HELD_OUT)
    if split < 1:
        return None
    held_x, held_missing = x[:, split:], missing[:, split:]
    before = float(held_missing.square().mean())
    fits = _fits(x[:, :split], missing[:, :split], RIDGES, biased, free)
    errors = [float((held_missing - held_x @ weight - bias).square().mean()) for weight, bias in fits]
    after = min(errors)
    if not after < before:
        return None
    ridge = RIDGES[errors.index(after)]
    weight, bias = next(_fits(x, missing, [ridge], biased, free))
    return Correction(weight, bias, ridge, before, after)


def _fits(x: Tensor, y: Tensor, ridges: Sequence[float], biased: bool, free: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the changes of weight and bias for each ridge."""
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    if not biased:
        x_mean, y_mean = torch.zeros_like(x_mean), torch.zeros_like(y_mean)
    centred = x - x_mean if biased else x
    for solved in ridge_regressions(centred, y - y_mean, ridges):
        weight = solved.mul_(free)
        yield weight, y_mean - x_mean @ weight
