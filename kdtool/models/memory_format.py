"""The memory format of a network's feature maps: channels first or channels last."""

from __future__ import annotations

import copy

import torch
from torch import nn

from kdtool.errors import FAILURES
from kdtool.models.architecture import Network
from kdtool.models.hooks import evaluating


def takes_channels_last(network: Network) -> bool:
    """Return whether a network runs on images in the channels-last memory format; a copy of it is tried.

    A network that calls ``view`` on a feature map does not.
    """
    first = next(network.module.parameters(), torch.zeros(0))
    images = torch.zeros(2, *network.architecture.input, device=first.device)
    module = copy.deepcopy(network.module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with torch.no_grad(), evaluating(module):
            module(images.contiguous(memory_format=torch.channels_last))
    except FAILURES:
        return False
    return True


def as_saved(module: nn.Module) -> nn.Module:
    """Move a module to the CPU, in the memory format of a checkpoint (contiguous), and return it."""
    moved: nn.Module = module.to(device="cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return moved
