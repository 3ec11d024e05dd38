"""The smallest images in which a network shows what its channels do."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kdtool.errors import FAILURES

SIDE = 64
"""The maps of a network with strides of 32 in all still have more than one position."""

SAME_AT_ANY_SIZE = nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm


def least_shape(module: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape (channels, height, width) of the images with which to follow a network's channels.

    Of a network of convolutions and batch-norms, with linear layers behind the pool alone, images of 64 pixels show
    the same as larger ones. Any other network, and one that does not run on them, is given images of its own shape.
    """
    small = (shape[0], SIDE, SIDE)
    if min(shape[1:]) <= SIDE:
        return shape
    behind_pool = True

    def note(layer: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal behind_pool
        behind_pool &= given[0].dim() == 2

    hooks = []
    try:
        for part in module.modules():
            if isinstance(part, nn.Linear):
                hooks.append(part.register_forward_pre_hook(note))
            elif not isinstance(part, SAME_AT_ANY_SIZE) and (part._parameters or part._buffers):
                return shape
        with torch.no_grad():
            output = module(torch.zeros(1, *small))
    except FAILURES:
        return shape
    finally:
        for hook in hooks:
            hook.remove()
    return small if behind_pool and output.dim() == 2 else shape
