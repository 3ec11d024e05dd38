"""Steps of torch's fused optimisers on weights in channels-last order, without copies of them.

The fused kernels for the CPU first copy every tensor that is not contiguous, and copy it back. An element is moved by
itself alone, so a view with the dimensions in the order of memory gives the same bits and needs no copies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

# Turning a tensor and turning it back takes about as long as the copies of this many numbers.
COPIES_COST_FROM = 1 << 16


@contextlib.contextmanager
def in_memory_order(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Give large parameters, their gradients and what the optimiser keeps of them as contiguous views in the block.

    Parameters that are contiguous already, or on another device than the CPU, stay as they are; so do all parameters
    of an optimiser that is not fused, since it may read their shapes.
    """
    turned: list[tuple[nn.Parameter, list[int]]] = [
        (parameter, order)
        for group in optimizer.param_groups
        if group.get("fused")
        for parameter in group["params"]
        if parameter.numel() >= COPIES_COST_FROM and (order := _order(parameter)) is not None
    ]
    for parameter, order in turned:
        _turn(optimizer, parameter, order)
    try:
        yield
    finally:
        for parameter, order in turned:
            _turn(optimizer, parameter, [order.index(dimension) for dimension in range(len(order))])


def _order(parameter: nn.Parameter) -> list[int] | None:
    """Return the dimensions from the slowest to the fastest in memory, or None if the tensor is to stay as it is."""
    if parameter.grad is None or parameter.device.type != "cpu" or parameter.is_contiguous():
        return None
    strides = parameter.stride()
    order = sorted(range(parameter.dim()), key=lambda dimension: -strides[dimension])
    return order if parameter.permute(order).is_contiguous() else None


def _turn(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, order: list[int]) -> None:
    """Permute the dimensions of a parameter, of its gradient and of the tensors of its shape that are kept of it."""
    shape, gradient, kept = parameter.shape, parameter.grad, optimizer.state.get(parameter, {})
    parameter.grad = None
    parameter.data = parameter.data.permute(order)
    parameter.grad = None if gradient is None else gradient.permute(order)
    for name, value in kept.items():
        if isinstance(value, Tensor) and value.shape == shape:
            kept[name] = value.permute(order)
