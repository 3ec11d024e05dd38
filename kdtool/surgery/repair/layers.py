"""Change the parameters of one layer, in place."""

from __future__ import annotations

from torch import Tensor, nn

from kdtool.surgery.repair.least_squares import correction
from kdtool.surgery.repair.statistics import scale_and_shift

AGREES = 1e-3
"""How far the product of a layer's rows may be from its outputs, as a fraction of the largest."""


def _columns(layer: nn.Module, groups: int) -> Tensor:
    """Return the weight of a layer as [groups, inputs, outputs]."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    columns: Tensor = weight.flatten(1).unflatten(0, (groups, -1)).mT
    return columns


def agrees(layer: nn.Module, x: Tensor, outputs: Tensor) -> bool:
    """Return whether the rows x [groups, rows, inputs] give the outputs [rows, outputs] of a layer."""
    bias = layer._parameters.get("bias")
    columns = _columns(layer, len(x))
    computed = (x.to(columns.dtype) @ columns).transpose(0, 1).flatten(1) + (0 if bias is None else bias)
    return bool((computed - outputs).abs().max() <= AGREES * outputs.abs().max())


def rescale(layer: nn.Module, outputs: Tensor, target: Tensor) -> str:
    """Give outputs the mean and the deviation of the target; return why that cannot be done, or nothing.

    Both are [rows, outputs].
    """
    weight, bias = layer._parameters["weight"], layer._parameters.get("bias")
    if weight is None or bias is None:
        return "has no bias, and no batch-norm follows"
    scale, shift = scale_and_shift(outputs, target.double())
    weight.mul_(scale.view(-1, *[1] * (weight.dim() - 1)).to(weight.dtype))
    bias.copy_(bias.double() * scale + shift)
    return ""


def solve(layer: nn.Module, x: Tensor, missing: Tensor) -> str:
    """Correct weight and bias by least squares; return why that cannot be done, or nothing.

    ``x`` [groups, rows, inputs] is what the layer reads, ``missing`` [rows, outputs] what its outputs lack.
    """
    weight, bias = layer._parameters["weight"], layer._parameters.get("bias")
    assert weight is not None
    missing = missing.unflatten(1, (len(x), -1)).transpose(0, 1)
    change = correction(x, missing, biased=bias is not None, free=_columns(layer, len(x)) != 0)
    if change is None:
        return "comes no closer on held-out images"
    weight.add_(change.weight.mT.flatten(0, 1).view_as(weight).to(weight.dtype))
    if bias is not None:
        bias.add_(change.bias.flatten().to(bias.dtype))
    return ""
