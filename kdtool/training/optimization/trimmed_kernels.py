"""Convolutions of maps that are smaller than their kernels, without the weights that meet padding alone.

Networks made for 224 pixels have maps of 1 x 1 or 2 x 2 in their last stage when the images have 32. There a kernel of
3 x 3 meets padding with 8 or 5 of its 9 weights, whatever the image is: they add 0 to the output, and their gradient is
0. The last stage holds most of the weights, so that leaving these out of a step's memory and arithmetic pays. What is
computed is the same, but for rounding.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.nn import functional as F

Sides = tuple[int, ...]
"""A number for the height and one for the width."""

# Smaller kernels stay in the processor's cache, and cost as little as cutting them does.
SMALLEST = 1 << 16


def trimmable(module: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions of a module that have large kernels and torch's own forward pass with zeros around."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
        and type(layer).forward is nn.Conv2d.forward
        and type(layer)._conv_forward is nn.Conv2d._conv_forward
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and max(layer.kernel_size) > 1
        and layer.weight.numel() >= SMALLEST
    ]


@contextlib.contextmanager
def trimmed_kernels(layers: Iterable[nn.Conv2d]) -> Iterator[None]:
    """Let layers that `trimmable` found compute with the part of their kernels that meets the image, in the block."""
    layers = list(layers)
    for layer in layers:
        vars(layer)["_conv_forward"] = types.MethodType(_convolved, layer)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("_conv_forward", None)


def _convolved(layer: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what the layer puts out for images of batch x channels x height x width."""
    padding, sides = layer.padding, (layer.kernel_size, layer.padding, layer.stride, layer.dilation)
    cut = _cut(images.shape[-2:], *sides)  # type: ignore[arg-type]
    if cut is not None:
        (rows, columns), padding = cut
        # Cut in the order of memory, so that the gradient is filled up in that order too.
        weight = weight.permute(0, 2, 3, 1)[:, rows, columns].permute(0, 3, 1, 2)
    output: Tensor = F.conv2d(images, weight, bias, layer.stride, padding, layer.dilation, layer.groups)
    return output


@functools.lru_cache(maxsize=1024)
def _cut(size: Sides, kernel: Sides, padding: Sides, *more: Sides) -> tuple[tuple[slice, ...], Sides] | None:
    """Return the rows and columns of a kernel that meet the image, and the padding left for them; None for all.

    ``size`` is the image's height and width in pixels, ``more`` are the stride and the dilation.
    """
    met = [part_that_meets(*sizes) for sizes in zip(size, kernel, padding, *more, strict=True)]
    if not any(met):
        return None
    parts = [part or (slice(None), whole) for part, whole in zip(met, padding, strict=True)]
    return tuple(part for part, _ in parts), tuple(left for _, left in parts)


def part_that_meets(size: int, kernel: int, padding: int, stride: int, dilation: int) -> tuple[slice, int] | None:
    """Return the weights along one side that meet the image anywhere, and the padding that is left for them.

    ``size`` is the image's length along that side in pixels. None if all weights meet it, or none.
    """
    places = range((size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
    met = [
        tap for tap in range(kernel) if any(0 <= place * stride - padding + tap * dilation < size for place in places)
    ]
    if not met or len(met) == kernel:
        return None
    left = padding - met[0] * dilation
    as_many = (size + 2 * left - dilation * (met[-1] - met[0]) - 1) // stride + 1 == len(places)
    return (slice(met[0], met[-1] + 1), left) if left >= 0 and as_many else None
