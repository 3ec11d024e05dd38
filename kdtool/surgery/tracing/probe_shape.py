"""The smallest images that show where the channels of a network go; small ones save time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kdtool.errors import FAILURES

SIDE = 64
"""Height and width in pixels. The maps of a network that divides both by 32 still have more than one position."""

SAME_AT_ANY_SIZE = nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm


def least_shape(module: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape [channels, height, width] of the images with which to follow a network's channels.

    ``shape`` is that of the network's own images. Images of 64 x 64 pixels are enough for a network of convolutions and
    batch-norms whose linear layers are all behind the global pool. Any other network, and one that does not run on such
    images, needs images of its own shape.
    """
    small = (shape[0], SIDE, SIDE)
    if min(shape[1:]) <= SIDE:
        return shape
    behind_pool = True

    def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal behind_pool
        behind_pool &= args[0].dim() == 2

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
