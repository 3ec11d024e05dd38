"""A projector behind a layer: maps of one network in the channels of another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

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
