"""Steps of torch's fused optimisers on weights in channels-last order: right ones, and without copies of the weights.

The fused kernels for the CPU walk through the memory of a weight, of its gradient and of what they keep of it together.
Where these are not in the same order, they move numbers by the gradients of others, without an error (torch 2.14). And
they copy every tensor that is not contiguous, and copy it back; a view with the dimensions in the order of memory gives
the same bits and needs no copies.
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

    Gradients in another order than their parameter's are copied to that order, whatever their size. Parameters that
    are contiguous already, or on another device than the CPU, stay as they are; so do all parameters of an optimiser
    that is not fused, since it may read their shapes.
    """
    turned = []
    for parameter, gradient in _moved(optimizer):
        if not _alike(parameter, gradient):
            parameter.grad = _in_order_of(parameter, gradient)
        if parameter.numel() >= COPIES_COST_FROM and (order := _order(parameter)) is not None:
            turned.append((parameter, order))
    for parameter, order in turned:
        _turn(optimizer, parameter, order)
    try:
        yield
    finally:
        for parameter, order in turned:
            _turn(optimizer, parameter, [order.index(dimension) for dimension in range(len(order))])


def put_in_order(optimizer: torch.optim.Optimizer) -> None:
    """Copy what an optimiser keeps of its parameters, such as it was loaded, to the order that they have in memory."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and not _alike(parameter, value):
                kept[name] = _in_order_of(parameter, value)


def _moved(optimizer: torch.optim.Optimizer) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield the parameters that a fused kernel for the CPU moves, and their gradients."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            gradient = parameter.grad
            if gradient is not None and not (gradient.is_cuda or gradient.is_mps):
                yield parameter, gradient


def _alike(parameter: Tensor, other: Tensor) -> bool:
    """Return whether the numbers of two tensors of one shape lie in the same order in memory."""
    return parameter.stride() == other.stride() or (parameter.is_contiguous() and other.is_contiguous())


def _in_order_of(parameter: Tensor, other: Tensor) -> Tensor:
    return torch.empty_like(parameter, dtype=other.dtype, requires_grad=False).copy_(other)


def _order(parameter: nn.Parameter) -> list[int] | None:
    """Return the dimensions from the slowest to the fastest in memory, or None if the tensor is to stay as it is."""
    if parameter.is_contiguous():
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
