"""A layer that passes on some of the channels it is given."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ChannelSelect(nn.Module):
    """Select channels: [batch, channels, ...] to [batch, len(index), ...].

    The index is structure, not weight: the architecture remembers it, the state dict does not.
    """

    index: Tensor

    def __init__(self, index: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor(list(index), dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the selected channels, in the order of the index."""
        return x.index_select(1, self.index)


def insert_select(module: nn.Module, path: str, index: Sequence[int]) -> None:
    """Put a selection before the layer at ``path``, which becomes ``path.norm``, in place."""
    parent_path, _, name = path.rpartition(".")
    parent = module.get_submodule(parent_path)
    layer = parent.get_submodule(name)
    parent._modules[name] = nn.Sequential(OrderedDict(select=ChannelSelect(index), norm=layer))


def selects_of(module: nn.Module) -> dict[str, list[int]]:
    """Return the index of every selection by the path of the layer it stands before."""
    return {
        path.removesuffix(".select"): [int(i) for i in layer.index]
        for path, layer in module.named_modules()
        if isinstance(layer, ChannelSelect)
    }
