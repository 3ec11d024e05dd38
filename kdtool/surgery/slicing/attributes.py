"""Make the plain attributes of modules say what their tensors are after slicing, in place."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import nn

from kdtool.models.edits import plain_attributes
from kdtool.models.layers import CONV_LINEAR
from kdtool.surgery.slicing.naming import NO_WIDTH, WIDTH, is_width
from kdtool.surgery.slicing.tensors import Widths, heads_of, near

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)

_SPLIT = re.compile(r"split")

_HEADS = re.compile(r"head")

_SCALE = re.compile(r"scale")


def fit_attributes(
    module: nn.Module,
    widths: dict[str, Widths],
    *,
    widest: bool = False,
    widest_in: frozenset[type[nn.Module]] = frozenset(),
) -> None:
    """Set the width attributes of all modules to the new sizes.

    Attributes of PyTorch's own layers follow from their tensors. Any other attribute is a width when it is named like
    one and its number, or a multiple of it (a head's width times the heads), is the size of a tensor in the module.
    Of several new sizes the least is meant, or the ``widest``, everywhere or in modules of some classes.
    """
    for path, part in module.named_modules():
        _fit_norm(part)
        if isinstance(part, CONV_LINEAR) or (isinstance(part, _NORMS) and part._parameters.get("weight") is not None):
            continue
        known = type(part).__module__.startswith("torch.") and not isinstance(part, nn.MultiheadAttention)
        if known and not (isinstance(part, nn.LayerNorm) and part.weight is None):
            continue
        places = near(path, widths)
        if not places or not _has_tensors(part):
            continue
        if widest or type(part) in widest_in:
            places = [{old: {max(new)} for old, new in place.items()} for place in places]
        before = plain_attributes(part)
        for name, value in before.items():
            new = _fitted(name, value, part, places)
            if new is not None and new != value:
                setattr(part, name, new)
        _fit_rests(part, before, places)


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


def _fit_rests(part: nn.Module, before: dict[str, Any], places: list[Widths]) -> None:
    """Fit a width that is no tensor's size but what another attribute leaves of one: the channels passed by."""
    widths = {name: value for name, value in before.items() if type(value) is int and is_width(name, value)}
    fitted = {name for name, value in widths.items() if getattr(part, name) != value}
    for name in sorted(set(widths) - fitted):
        for other in sorted(fitted):
            whole = widths[name] + widths[other]
            sizes: set[int] = next((place[whole] for place in places[:2] if whole in place), set())
            if sizes and widths[name] not in places[0] and min(sizes) > getattr(part, other):
                setattr(part, name, min(sizes) - getattr(part, other))
                break


def _fitted(name: str, value: Any, part: nn.Module, places: list[Widths]) -> Any:
    if _SPLIT.search(name) and type(value) in (tuple, list) and value and not _HEADS.search(name):
        return _split(value, places) if all(type(one) is int for one in value) else None
    if NO_WIDTH.search(name) or (name == "normalized_shape" and part._parameters.get("weight") is not None):
        return None  # the latter was set from the weight
    if name == "width" and "height" in vars(part):
        return None  # that of images
    if name == "shape" and type(value) is tuple:
        return tuple(min(places[0][one]) if type(one) is int and one > 1 and one in places[0] else one for one in value)
    if type(value) is int:
        return _width(name, value, part, places)
    if type(value) is float and _SCALE.search(name) and 0 < value < 1:
        width = round(value**-2)
        if math.isclose(width**-0.5, value, rel_tol=1e-9):
            new = _of_heads(width, part, places)
            return None if new is None else new**-0.5
    if type(value) in (tuple, list) and value and WIDTH.search(name) and all(type(one) is int for one in value):
        return type(value)(_width(name, one, part, places) or one for one in value)
    return None


def _width(name: str, value: int, part: nn.Module, places: list[Widths]) -> int | None:
    if value < 2 or not WIDTH.search(name):
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
    """Return the sizes into which a width is split: those that tensors have, and of the others the share of the rest.

    Where the sizes of tensors do not sum up to the new width, all are shares of it.
    """
    known = {one: min(places[0][one]) for one in value if one in places[0]}
    whole = next((min(widths[sum(value)]) for widths in places[:2] if sum(value) in widths), None)
    if whole is None:
        return type(value)(known[one] for one in value) if len(known) == len(set(value)) else None
    left = whole - sum(known.get(one, 0) for one in value)
    others = sum(one for one in value if one not in known)
    if left < 0 or (not others and left):
        known, left, others = {}, whole, sum(value)
    parts = [known[one] if one in known else one * left // others for one in value]
    first = next((i for i, one in enumerate(value) if one not in known), 0)
    parts[first] += whole - sum(parts)
    return type(value)(parts)
