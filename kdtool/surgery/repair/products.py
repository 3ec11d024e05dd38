"""What a convolution or linear layer multiplies its weight with, as rows of a matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = frozenset({F.conv1d, F.conv2d, F.conv3d})

_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class Product(TorchFunctionMode):
    """Remembers the inputs of the products with one weight that run in this context.

    The layer may pad its images itself, or in other ways than with zeros: what counts is what is multiplied.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.seen: list[dict[str, Any]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear or func in _CONVOLUTIONS:
            named = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
            if named.get("weight") is self.weight:
                self.seen.append(named)
        return func(*args, **kwargs)


def rows_of(y: Tensor, layer: nn.Module) -> Tensor:
    """Return the outputs of a layer as rows [positions, channels]."""
    return (y if isinstance(layer, nn.Linear) else y.movedim(1, -1)).flatten(0, -2)


def inputs_at(product: dict[str, Any], positions: Tensor) -> Tensor:
    """Return what the weight is multiplied with at some positions of the output.

    ``positions`` [rows] count the positions of the output as `rows_of` does. The result is [groups, rows, inputs] in
    float64, in the order of the columns of ``weight.flatten(1)``.
    """
    x: Tensor
    weight: Tensor
    x, weight = product["input"], product["weight"]
    if weight.dim() == 2:
        return x.flatten(0, -2)[positions].unsqueeze(0).double()
    kernel, spatial = weight.shape[2:], weight.dim() - 2
    stride, dilation = (_each(product.get(name, 1), spatial) for name in ("stride", "dilation"))
    padding = product.get("padding", 0)
    if isinstance(padding, str):
        totals = [step * (size - 1) if padding == "same" else 0 for step, size in zip(dilation, kernel, strict=True)]
        sides = [(total // 2, total - total // 2) for total in totals]
    else:
        sides = [(side, side) for side in _each(padding, spatial)]
    x = F.pad(x, [side for pair in reversed(sides) for side in pair])
    out = [
        (size - step * (length - 1) - 1) // jump + 1
        for size, step, length, jump in zip(x.shape[2:], dilation, kernel, stride, strict=True)
    ]
    images, place = positions // math.prod(out), positions % math.prod(out)
    corners = torch.unravel_index(place, out)
    offsets = torch.unravel_index(torch.arange(math.prod(kernel)), tuple(kernel))
    at = torch.zeros(len(positions), math.prod(kernel), dtype=torch.long)
    for size, corner, jump, offset, step in zip(x.shape[2:], corners, stride, offsets, dilation, strict=True):
        at = at * size + corner[:, None] * jump + offset * step
    patches = x.movedim(1, -1).flatten(1, -2).contiguous()[images[:, None], at]  # [rows, kernel, channels]
    by_group: Tensor = patches.unflatten(2, (product.get("groups", 1), -1)).permute(2, 0, 3, 1)
    return by_group.to(torch.float64, memory_format=torch.contiguous_format).flatten(2)


def _each(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value) * (count if len(value) == 1 else 1)
