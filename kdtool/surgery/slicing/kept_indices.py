"""Choose which indices of a dimension stay: evenly spaced ones, except where groups, heads or splits need others."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdtool.models.edits import plain_attributes
from kdtool.models.layers import CONV_LINEAR, is_depthwise
from kdtool.surgery.slicing.naming import is_width
from kdtool.surgery.slicing.tensors import heads_of


def even_indices(size: int, ratio: float, round_to: int = 1, parts: int = 1) -> Tensor:
    """Return ``ratio * size`` evenly spaced indices out of ``size``, rounded up to a multiple of ``round_to``.

    Without rounding, the indices for a smaller size are the beginning of those for a larger one, so that concatenated
    and split dimensions keep the same channels. If ``size`` divides into ``parts`` equal parts, each part keeps the
    same indices.
    """
    if parts > 1 and size % parts == 0 and round_to % parts:
        within = even_indices(size // parts, ratio, math.ceil(round_to / parts))
        return (torch.arange(parts)[:, None] * (size // parts) + within).flatten()
    if round_to == 1:
        edges = [math.ceil(i * ratio - 1e-9) for i in range(size + 1)]
        return torch.tensor([i for i in range(size) if edges[i + 1] > edges[i]], dtype=torch.long)
    count = min(size, max(round_to, round_to * math.ceil(size * ratio / round_to - 1e-9)))
    return torch.arange(count) * size // count


def uneven(module: nn.Module, ratio: float, round_to: int = 1) -> dict[tuple[str, int], Tensor]:
    """Return the kept indices of dimensions whose groups `even_indices` would leave with different sizes.

    Where ``ratio`` does not divide the width of a group, or sizes are rounded, convolutions lose whole groups and the
    same channels in each group that stays, and each attention head loses the same channels. The outputs that a
    depthwise convolution makes of one channel stay together.

    The result is by (path, size). With an empty path, the indices hold for every dimension of this size in the network,
    because tensors that are added have to keep the same channels. With a path, they hold inside of that module, as for
    a layer that computes queries, keys and values together.
    """
    patterns: dict[tuple[str, int], Tensor] = {}
    for path, part in module.named_modules():
        if isinstance(part, nn.modules.conv._ConvNd) and part.groups > 1:
            ins, outs = part.in_channels // part.groups, part.out_channels // part.groups
            if is_depthwise(part):
                if outs > 1:
                    ins_kept = patterns.get(("", part.groups))
                    ins_kept = even_indices(part.groups, ratio, round_to) if ins_kept is None else ins_kept
                    patterns["", part.out_channels] = blocks(ins_kept, outs)
            elif round_to > 1 or not (_whole(ins, ratio) and _whole(outs, ratio)):
                patterns["", part.in_channels], patterns["", part.out_channels] = _grouped(
                    part.groups, ins, outs, ratio, round_to
                )
        heads, width = heads_of(part), _head_width(part)
        if heads is not None and width is not None and (round_to > 1 or not _whole(width, ratio)):
            # The width of all heads together has to be a multiple of round_to; each head needs only its share of that.
            within = even_indices(width, ratio, round_to // math.gcd(round_to, heads))
            for times in (1, 2, 3):
                count = heads * times
                patterns["" if times == 1 else path, count * width] = (
                    torch.arange(count)[:, None] * width + within
                ).flatten()
    return patterns


def attribute_splits(module: nn.Module, ratio: float) -> dict[tuple[str, int], Tensor]:
    """Return by (path, size) the kept indices of dimensions that a module splits according to its attributes.

    If an attribute lists the sizes of the parts, the parts as large as some tensor of the module lose channels, and the
    others, such as one gate for each level, stay whole. If an attribute holds a width that ``ratio`` does not divide,
    a dimension of two or three times this width loses the same channels in each part.
    """
    patterns: dict[tuple[str, int], Tensor] = {}
    for path, part in module.named_modules():
        sizes = {size for tensor in part.parameters() for size in tensor.shape[:2]}
        for name, value in plain_attributes(part).items():
            many = type(value) in (tuple, list) and len(value) > 1 and all(type(item) is int for item in value)
            if many and sum(value) in sizes:
                starts = [sum(value[:number]) for number in range(len(value))]
                kept = [even_indices(item, ratio) if item in sizes else torch.arange(item) for item in value]
                patterns[path, sum(value)] = torch.cat([start + part for start, part in zip(starts, kept, strict=True)])
            elif type(value) is int and is_width(name, value) and not _whole(value, ratio):
                for times in (2, 3):
                    if times * value in sizes:
                        within = even_indices(value, ratio)
                        patterns[path, times * value] = (torch.arange(times)[:, None] * value + within).flatten()
    return patterns


def _head_width(part: nn.Module) -> int | None:
    """Return the width of an attention's head: its attribute, or the width of its projections over its heads."""
    width, heads = vars(part).get("head_dim"), heads_of(part)
    if type(width) is int:
        return width
    linear = [child for child in part.children() if isinstance(child, nn.Linear)]
    whole = {child.in_features for child in linear if child.in_features == child.out_features}
    return whole.pop() // heads if heads and len(whole) == 1 and next(iter(whole)) % heads == 0 else None


def _grouped(groups: int, ins: int, outs: int, ratio: float, round_to: int) -> tuple[Tensor, Tensor]:
    """Return the kept inputs and outputs of a grouped convolution whose groups ``ratio`` does not divide.

    ``ins`` and ``outs`` are the channels of each group. Every group that stays keeps a fraction of its channels that
    divides without a remainder, the smallest that is not below ``ratio``; enough groups go to reach ``ratio``. With
    rounding, it is the choice of fraction and groups with the fewest channels; everything stays if none is a multiple
    of ``round_to``.
    """
    common = math.gcd(ins, outs)
    shares = [share for share in range(common, 0, -1) if common % share == 0 and share * ratio <= 1 + 1e-9]
    fitting = [
        (share, left)
        for share in shares
        for left in range(math.ceil(groups * share * ratio - 1e-9), groups + 1)
        if left * (ins // share) % round_to == 0 and left * (outs // share) % round_to == 0
    ]
    if round_to == 1:
        share = shares[0]
        kept = even_indices(groups, ratio * share)
    else:
        share, left = min(fitting, key=lambda pair: pair[1] / pair[0], default=(1, groups))
        kept = torch.arange(left) * groups // left
    return tuple(  # type: ignore[return-value]
        (kept[:, None] * size + even_indices(size, 1 / share)).flatten() for size in (ins, outs)
    )


def whole_ratios(module: nn.Module, ratio: float, round_to: int = 1) -> list[float]:
    """Return ratios above ``ratio`` at which some layer's width is a whole multiple of ``round_to``.

    Ratios that suit the most layers come first; all are below twice ``ratio`` and below 1. Where widths are sums or
    halves of each other, such a ratio tends to make all of them whole.
    """
    sizes = [layer.weight.shape[0] for layer in module.modules() if isinstance(layer, CONV_LINEAR)]
    rounded = {round_to * math.ceil(size * ratio / round_to - 1e-9) / size for size in sizes}
    larger = [other for other in rounded if ratio + 1e-9 < other < min(2 * ratio, 1)]
    return sorted(larger, key=lambda other: (-sum(_whole(size, other / round_to) for size in sizes), other))


def blocks(kept: Tensor, size: int) -> Tensor:
    """Return the indices inside of the kept blocks, which have ``size`` indices each."""
    return (kept[:, None] * size + torch.arange(size)).flatten()


def _whole(size: int, ratio: float) -> bool:
    """Return whether ``size * ratio`` is a whole number."""
    return abs(size * ratio - round(size * ratio)) < 1e-9
