"""Stochastic depth: residual branches that are left out at random while a network is trained."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from kdtool.errors import UsageError

# Where the blocks of timm keep what drops a branch. It is None or an identity if nothing is dropped.
_PLACES = ("drop_path", "drop_path1", "drop_path2")


@contextlib.contextmanager
def dropping_paths(modules: Iterable[nn.Module], rate: float) -> Iterator[None]:
    """Drop the residual branches of networks while the block runs, of each image on its own.

    ``modules`` are a network and the modules that learn with it, which may hold more networks. In each network the
    probability rises linearly from 0 in the first block to ``rate`` in the last one; the branches that stay are divided
    by their probability (Huang et al., 2016, arXiv:1603.09382). With a rate of 0 nothing is changed.

    Raises:
        UsageError: the first network has no branches that its library can drop.
    """
    if not rate:
        yield
        return
    first, *others = modules
    networks = [first, *(network for module in others for network in _networks(module))]
    places = [_places(network) for network in networks]
    if not places[0]:
        raise UsageError(
            "--drop-path: this network has no residual branches that can be dropped; timm's residual networks and "
            "torchvision's ConvNeXt, EfficientNet and Swin have them"
        )
    for own in places:
        _fill(own, rate)
    try:
        yield
    finally:
        for part, name, before in itertools.chain.from_iterable(places):
            if before is None:
                delattr(part, name)  # else the place would be listed as a module from now on
            setattr(part, name, before)


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the networks in a module that learns with a student: what it holds, itself or in lists.

    Its other parts, such as adapters, are yielded too; they have no branches to drop.
    """
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _networks(child)
        else:
            yield child


def _places(network: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Return where the branches of a network can be dropped: a module, an attribute of it, and its present value."""
    from torchvision.ops import StochasticDepth

    places: list[tuple[nn.Module, str, Any]] = []
    for part in network.modules():
        if isinstance(part, StochasticDepth):
            places.append((part, "p", part.p))
        places += [(part, name, getattr(part, name)) for name in _PLACES if _is_free(part, name)]
    return places


def _fill(places: Sequence[tuple[nn.Module, str, Any]], rate: float) -> None:
    """Drop the branches at the places of one network, with probabilities that rise to ``rate``."""
    from timm.layers import DropPath

    blocks = list(dict.fromkeys(id(part) for part, _, _ in places))
    for part, name, _ in places:
        own = rate * blocks.index(id(part)) / max(len(blocks) - 1, 1)
        setattr(part, name, own if name == "p" else DropPath(own).train(part.training))


def _is_free(part: nn.Module, name: str) -> bool:
    """Return whether a block of timm has a place ``name`` for what drops its branch."""
    from timm.layers import DropPath

    if not hasattr(part, name) or not type(part).__module__.startswith("timm."):
        return False
    value = getattr(part, name)
    return value is None or isinstance(value, nn.Identity | DropPath)
