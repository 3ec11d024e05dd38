"""Make the plain attributes of modules say what their tensors are after slicing, in place."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import nn

from kdtool.structure.edits import plain_attributes
from kdtool.structure.flow import MIXING
from kdtool.structure.slicing import Widths, heads_of, near

# Names that hold no width, though they look like one.
_OTHER = re.compile(
    r"num_(?!features|channels|out_features|in_chs|hidden|1x1)|size|patch|window|stride|kernel|depth|(?<!dim_)heads?$|head_splits|group"
    r"|resolution|area|token|level|block|radix|ind(ex|ices)|idx|dilat|padding|classes|in_chans|stage|height|grid|repeat"
    r"|rank|card|expert|layers|length|offset|stop|start|permut|axis|shift|spatial|channel_dim|chunk_dim|reps|branch"
    r"|^[khwnst]$|^ws$|^bs$|dims?_spatial|prefix|ends$",
    re.IGNORECASE,
)
_WIDTH = re.compile(
    r"dim|chan|chs|feat|embed|planes|width|hidden|normalized_shape|^d$|^dh$|^inc$|split|_c$|^head_size$", re.IGNORECASE
)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
_SPLIT = re.compile(r"split")
_SCALE = re.compile(r"scale")


def fit_attributes(module: nn.Module, widths: dict[str, Widths]) -> None:
    """Set the width attributes of all modules to the new sizes.

    Attributes of PyTorch's own layers follow from their tensors. Any other attribute is a width when it is named like
    one and its number, or a multiple of it (a head's width times the heads), is the size of a tensor in the module.
    """
    for path, part in module.named_modules():
        _fit_norm(part)
        if isinstance(part, MIXING) or (isinstance(part, _NORMS) and part._parameters.get("weight") is not None):
            continue
        known = type(part).__module__.startswith("torch.") and not isinstance(part, nn.MultiheadAttention)
        if known and not (isinstance(part, nn.LayerNorm) and part.weight is None):
            continue
        places = near(path, widths)
        if not places or not _has_tensors(part):
            continue
        for name, value in plain_attributes(part).items():
            new = _fitted(name, value, part, places)
            if new is not None and new != value:
                setattr(part, name, new)


def _has_tensors(part: nn.Module) -> bool:
    # A layer without any, such as a permutation of dimensions, has no width either; a norm without gain has one.
    tensors = [*part.parameters(), *part.buffers()]
    return bool(tensors) or isinstance(part, nn.LayerNorm)


def _fit_norm(part: nn.Module) -> None:
    weight = next(
        (one for one in (part._parameters.get("weight"), part._buffers.get("running_mean")) if one is not None), None
    )
    if weight is None:
        return
    if isinstance(part, nn.LayerNorm) or "normalized_shape" in vars(part):
        part.normalized_shape = type(part.normalized_shape)(weight.shape)  # type: ignore[operator,assignment]
    elif isinstance(part, nn.modules.batchnorm._NormBase):
        part.num_features = weight.shape[0]
    elif isinstance(part, nn.GroupNorm):
        part.num_channels = weight.shape[0]


def _fitted(name: str, value: Any, part: nn.Module, places: list[Widths]) -> Any:
    if _OTHER.search(name) or (name == "normalized_shape" and part._parameters.get("weight") is not None):
        return None  # the latter was set from the weight
    if type(value) is int:
        return _width(name, value, part, places)
    if type(value) is float and _SCALE.search(name) and 0 < value < 1:
        width = round(value**-2)
        if math.isclose(width**-0.5, value, rel_tol=1e-9):
            new = _of_heads(width, part, places)
            return None if new is None else new**-0.5
    if type(value) in (tuple, list) and value and _WIDTH.search(name) and all(type(one) is int for one in value):
        if _SPLIT.search(name):
            return _split(value, places)
        return type(value)(_width(name, one, part, places) or one for one in value)
    return None


def _width(name: str, value: int, part: nn.Module, places: list[Widths]) -> int | None:
    if value < 2 or not _WIDTH.search(name):
        return None
    return min(places[0][value]) if value in places[0] else _of_heads(value, part, places)


def _of_heads(value: int, part: nn.Module, places: list[Widths]) -> int | None:
    """Return the new size of a part of a width, such as that of one attention head."""
    heads = heads_of(part)
    for widths in places[:3]:
        for times in (1, *([heads] if heads else []), *range(2, 65)):
            sizes: set[int] = widths.get(value * times, set())
            for size in sorted(sizes):
                if size % times == 0:
                    return int(size // times)
    return None


def _split(value: Any, places: list[Widths]) -> Any:
    """Return the sizes into which a width is split, each one's share of the new width."""
    total = sum(value)
    for widths in places[:2]:
        if total in widths:
            new = min(widths[total])
            parts = [one * new // total for one in value]
            parts[0] += new - sum(parts)
            return type(value)(parts)
    return None
