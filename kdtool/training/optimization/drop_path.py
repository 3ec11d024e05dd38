"""Stochastic depth: residual branches that are left out at random while a network is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from kdtool.errors import UsageError

# Where the blocks of timm keep what drops a branch. It is None or an identity if nothing is dropped.
_PLACES = ("drop_path", "drop_path1", "drop_path2")


@contextlib.contextmanager
def dropping_paths(module: nn.Module, rate: float) -> Iterator[None]:
    """Drop the residual branches of ``module`` while the block runs, of each image on its own.

    The probability rises linearly from 0 in the first block to ``rate`` in the last one; the branches that stay are
    divided by their probability (Huang et al., 2016, arXiv:1603.09382). With a rate of 0 nothing is changed.

    Raises:
        UsageError: the network has no branches that its library can drop.
    """
    if not rate:
        yield
        return
    from timm.layers import DropPath
    from torchvision.ops import StochasticDepth

    places: list[tuple[nn.Module, str, Any]] = []
    for part in module.modules():
        if isinstance(part, StochasticDepth):
            places.append((part, "p", part.p))
        places += [(part, name, getattr(part, name)) for name in _PLACES if _is_free(part, name)]
    if not places:
        raise UsageError(
            "--drop-path: this network has no residual branches that can be dropped; timm's residual networks and "
            "torchvision's ConvNeXt, EfficientNet and Swin have them"
        )
    blocks = list(dict.fromkeys(id(part) for part, _, _ in places))
    for part, name, _ in places:
        own = rate * blocks.index(id(part)) / max(len(blocks) - 1, 1)
        setattr(part, name, own if name == "p" else DropPath(own).train(part.training))
    try:
        yield
    finally:
        for part, name, before in places:
            if before is None:
                delattr(part, name)  # else the place would be listed as a module from now on
            setattr(part, name, before)


def _is_free(part: nn.Module, name: str) -> bool:
    """Return whether a block of timm has a place ``name`` for what drops its branch."""
    from timm.layers import DropPath

    if not hasattr(part, name) or not type(part).__module__.startswith("timm."):
        return False
    value = getattr(part, name)
    return value is None or isinstance(value, nn.Identity | DropPath)
