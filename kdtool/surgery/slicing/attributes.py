"""Set the plain attributes of modules to the sizes that their tensors have after slicing, in place."""

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

    Attributes of PyTorch's own layers follow from their tensors. Any other attribute is a width if it is named like one
    and its value, or a multiple of it (the width of a head times the number of heads), is the size of a tensor in the
    module. If a size became several new ones, the attribute gets the smallest; it gets the largest if ``widest`` is
    true, or in modules of the classes ``widest_in``.
    """
    for path, part in module.named_modules():
        _fit_norm(part)
        if isinstance(part, CONV_LINEAR) or (isinstance(part, _NORMS) and part._parameters.get("weight") is not None):
            continue
        derived = type(part).__module__.startswith("torch.") and not isinstance(part, nn.MultiheadAttention)
        if derived and not (isinstance(part, nn.LayerNorm) and part.weight is None):
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
        _fit_remainders(part, before, places)


def _has_tensors(part: nn.Module) -> bool:
    # A layer without tensors, such as a permutation of dimensions, has no width. A norm without gain has one.
    tensors = [*part.parameters(), *part.buffers()]
    return bool(tensors) or isinstance(part, nn.LayerNorm)


def _fit_norm(part: nn.Module) -> None:
    """Set the width attributes of PyTorch's norms, and of modules like them, to the size of their tensors."""
    per_channel = (part._parameters.get("weight"), part._buffers.get("running_mean"))
    weight = next((tensor for tensor in per_channel if tensor is not None), None)
    if weight is None:
        return
    if isinstance(part, nn.LayerNorm) or "normalized_shape" in vars(part):
        part.normalized_shape = type(part.normalized_shape)(weight.shape)  # type: ignore[operator,assignment]
    elif isinstance(part, nn.modules.batchnorm._NormBase):
        part.num_features = weight.shape[0]
    elif isinstance(part, nn.GroupNorm):
        part.num_channels = weight.shape[0]


def _fit_remainders(part: nn.Module, before: dict[str, Any], places: list[Widths]) -> None:
    """Set attributes that hold what another attribute leaves of a width, such as channels that a layer passes on."""
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
    """Return the new value of an attribute, or None if it holds no width or its new value is unknown."""
    if _SPLIT.search(name) and type(value) in (tuple, list) and value and not _HEADS.search(name):
        return _split(value, places) if all(type(size) is int for size in value) else None
    if NO_WIDTH.search(name) or (name == "normalized_shape" and part._parameters.get("weight") is not None):
        return None  # normalized_shape was set from the weight
    if name == "width" and "height" in vars(part):
        return None  # the width of images
    if name == "shape" and type(value) is tuple:
        widths = places[0]
        return tuple(min(widths[size]) if type(size) is int and size > 1 and size in widths else size for size in value)
    if type(value) is int:
        return _width(name, value, part, places)
    if type(value) is float and _SCALE.search(name) and 0 < value < 1:
        width = round(value**-2)
        if math.isclose(width**-0.5, value, rel_tol=1e-9):
            new = _part_of_width(width, part, places)
            return None if new is None else new**-0.5
    if type(value) in (tuple, list) and value and WIDTH.search(name) and all(type(size) is int for size in value):
        return type(value)(_width(name, size, part, places) or size for size in value)
    return None


def _width(name: str, value: int, part: nn.Module, places: list[Widths]) -> int | None:
    """Return the new value of an attribute that holds one width, or None if it holds none or it is unknown."""
    if value < 2 or not WIDTH.search(name):
        return None
    return min(places[0][value]) if value in places[0] else _part_of_width(value, part, places)


def _part_of_width(value: int, part: nn.Module, places: list[Widths]) -> int | None:
    """Return the new size of an even part of a width, such as the width of one attention head."""
    heads = heads_of(part)
    for widths in places[:3]:
        for times in (1, *([heads] if heads else []), *range(2, 65)):
            sizes: set[int] = widths.get(value * times, set())
            for size in sorted(sizes):
                if size % times == 0:
                    return int(size // times)
    return None


def _split(value: Any, places: list[Widths]) -> Any:
    """Return the new sizes into which a width is split, or None if they are unknown.

    Sizes that tensors have become the new sizes of these tensors; the others share what is left in proportion. If that
    does not add up to the new width, all sizes are shares of it.
    """
    known = {size: min(places[0][size]) for size in value if size in places[0]}
    whole = next((min(widths[sum(value)]) for widths in places[:2] if sum(value) in widths), None)
    if whole is None:
        return type(value)(known[size] for size in value) if len(known) == len(set(value)) else None
    left = whole - sum(known.get(size, 0) for size in value)
    others = sum(size for size in value if size not in known)
    if left < 0 or (not others and left):
        known, left, others = {}, whole, sum(value)
    parts = [known[size] if size in known else size * left // others for size in value]
    first = next((i for i, size in enumerate(value) if size not in known), 0)
    parts[first] += whole - sum(parts)
    return type(value)(parts)
