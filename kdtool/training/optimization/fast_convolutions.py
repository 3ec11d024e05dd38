"""The forward passes of convolutions as training runs them on the CPU: what torch computes, in less time.

Convolutions of small maps become products of matrices (see `kdtool.training.optimization.small_maps`). Depthwise
convolutions stay in float32 where autocast would round them to bfloat16: they do so little arithmetic that it gains
nothing there, and the CPU library's backward pass of them takes several times as long in bfloat16.

Only rounding differs. benchmarks/small_maps.py and benchmarks/precision.py measure what it brings.
"""

from __future__ import annotations

import contextlib
import copy
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtool.training.optimization.small_maps import SMALLEST, cut, windows

NAME = "_conv_forward"


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions of a module that have torch's own forward pass, all channels and zeros around."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
        and type(layer).forward is nn.Conv2d.forward
        and type(layer)._conv_forward is nn.Conv2d._conv_forward
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    ]


@contextlib.contextmanager
def fast_convolutions(layers: Iterable[nn.Conv2d]) -> Iterator[None]:
    """Let layers that `convolutions` found compute in these ways, in the block."""
    before = [(layer, vars(layer).get(NAME)) for layer in layers]
    for layer, _ in before:
        vars(layer)[NAME] = _Fast(layer)
    try:
        yield
    finally:
        for layer, own in before:
            if own is None:
                vars(layer).pop(NAME, None)
            else:
                vars(layer)[NAME] = own


class _Fast:
    """The faster forward pass of a layer; copies of the layer, which may be exported or compared, have torch's own."""

    def __init__(self, layer: nn.Conv2d) -> None:
        self.layer = layer

    def __call__(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _conv_forward(self.layer, images, weight, bias)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return types.MethodType(nn.Conv2d._conv_forward, copy.deepcopy(self.layer, memo))

    def __reduce__(self) -> Any:
        return getattr, (self.layer, NAME)


def _conv_forward(layer: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what the layer puts out for images of batch x channels x height x width."""
    whole, padding, sides = weight, layer.padding, (layer.kernel_size, layer.padding, layer.stride, layer.dilation)
    met = cut(images.shape[-2:], *sides) if weight.numel() >= SMALLEST else None  # type: ignore[arg-type]
    if met is not None:
        (rows, columns), padding = met
        # Cut in the order of memory, so that the gradient is filled up in that order too.
        weight = weight.permute(0, 2, 3, 1)[:, rows, columns].permute(0, 3, 1, 2)
    # Another order of channels would come out if the images had one, and not all networks take that.
    if layer.groups == 1 and images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last):
        found = windows(images.shape[2:], weight.shape[2:], padding, layer.stride, layer.dilation)  # type: ignore[arg-type]
        if found.pays(len(images), len(weight), half=images.dtype == torch.bfloat16):
            output = found.convolve(images, weight, bias)
            return output if _channels_last(images) or _channels_last(whole) else output.contiguous()
    if layer.groups == layer.in_channels > 1 and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            images = images.to(weight.dtype)
            return F.conv2d(images, weight, bias, layer.stride, padding, layer.dilation, layer.groups)
    return F.conv2d(images, weight, bias, layer.stride, padding, layer.dilation, layer.groups)


def _channels_last(tensor: Tensor) -> bool:
    """Return whether torch puts the channels last that are made of this: its strides tell, even of one channel."""
    return tensor.stride(1) == 1 and tensor.shape[2:].numel() > 1
