"""A projector behind a layer: maps of one network in the channels of another."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# What a file may ask for, in weights: without bounds a few bytes could ask for a network that fills the memory.
LARGEST = 2**28


class Projector(nn.Sequential):
    """Three convolutions, each with batch-norm and ReLU (Chen et al., 2022): [batch, channels, height, width] to
    [batch, out, height, width], through ``middle`` channels."""

    def __init__(self, channels: int, middle: int, out: int) -> None:
        super().__init__(
            *_row(nn.Conv2d(channels, middle, 1, bias=False)),
            *_row(nn.Conv2d(middle, middle, 3, padding=1, bias=False)),
            *_row(nn.Conv2d(middle, out, 1, bias=False)),
        )


def _row(mix: nn.Conv2d) -> tuple[nn.Module, ...]:
    return mix, nn.BatchNorm2d(mix.out_channels), nn.ReLU()


class Projected(nn.Sequential):
    """A layer, and the projector behind it."""

    def __init__(self, layer: nn.Module, channels: Sequence[int]) -> None:
        super().__init__(OrderedDict(layer=layer, projector=Projector(*channels)))


def insert_projector(module: nn.Module, path: str, channels: Sequence[int]) -> None:
    """Put a projector behind the layer at ``path``, which becomes ``path.layer``, in place.

    ``channels`` are those of its input, its middle and its output.
    """
    parent_path, _, name = path.rpartition(".")
    parent = module.get_submodule(parent_path)
    parent._modules[name] = Projected(parent.get_submodule(name), channels)


def projectors_of(module: nn.Module) -> dict[str, list[int]]:
    """Return the channels of every projector by the path of the layer it stands behind, outer ones first."""
    return {path: _channels(layer) for path, layer in module.named_modules() if isinstance(layer, Projected)}


def _channels(layer: Projected) -> list[int]:
    mixes = [one for one in layer.get_submodule("projector").children() if isinstance(one, nn.Conv2d)]
    return [mixes[0].weight.shape[1], *(one.weight.shape[0] for one in mixes[1:])]


def are_projectors(value: Any) -> bool:
    """Return whether plain data says where projectors stand, and none is too large."""
    return isinstance(value, Mapping) and all(
        isinstance(path, str) and path and _is_small(channels) for path, channels in value.items()
    )


def _is_small(channels: Any) -> bool:
    if not isinstance(channels, list | tuple) or [type(one) for one in channels] != [int] * 3 or min(channels) < 1:
        return False
    first, middle, out = map(int, channels)
    return middle * (first + 9 * middle + out) <= LARGEST


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


ITERATED = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Containers whose children are run one after another, whichever there are."""


class Skip(nn.Module):
    """Pass on what it is given first, whatever that is: a residual block without its branch."""

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Return ``x``."""
        return x


def leave_out(parent: nn.Module, names: Iterable[str]) -> None:
    """Delete children, in place; a parent that calls its children by name gets a `Skip` in their places.

    What is left in a Sequential or ModuleList is numbered anew from 0.
    """
    gone = set(names)
    if not isinstance(parent, ITERATED):
        for name in gone:
            parent._modules[name] = Skip()
        return
    kept = [(name, child) for name, child in parent._modules.items() if name not in gone]
    if isinstance(parent, nn.Sequential | nn.ModuleList):
        # Sequentials with names of their own keep them.
        numbered = all(name.isdecimal() for name in parent._modules)
        kept = [(str(i) if numbered else name, child) for i, (name, child) in enumerate(kept)]
    parent._modules.clear()
    parent._modules.update(kept)


@contextlib.contextmanager
def left_out(module: nn.Module, paths: Iterable[str]) -> Iterator[None]:
    """Do without modules for a while."""
    names: dict[str, list[str]] = {}
    for path in paths:
        above, _, name = path.rpartition(".")
        names.setdefault(above, []).append(name)
    parents = [(module.get_submodule(path), gone) for path, gone in names.items()]
    before = [dict(parent._modules) for parent, _ in parents]
    try:
        for parent, gone in parents:
            leave_out(parent, gone)
        yield
    finally:
        for (parent, _), children in zip(parents, before, strict=True):
            parent._modules.clear()
            parent._modules.update(children)
