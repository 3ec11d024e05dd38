"""Which indices of a dimension stay."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdtool.models.edits import plain_attributes
from kdtool.models.layers import CONV_LINEAR, is_depthwise
from kdtool.surgery.slicing.naming import is_width
from kdtool.surgery.slicing.tensors import heads_of


def even_indices(size: int, ratio: float, round_to: int = 1, parts: int = 1) -> Tensor:
    """Return evenly spaced indices of ``ratio * size`` out of ``size``, rounded up to a multiple of ``round_to``.

    Without rounding the pattern of a smaller size is the beginning of that of a larger one, so that concatenated
    and split dimensions keep the same channels. Of a size that divides into ``parts`` parts each keeps the same.
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
    """Return by (path, size) the patterns of dimensions whose groups `even_indices` would leave with different sizes.

    Groups of a convolution with an odd width go as a whole, and so do as many as rounding asks for; heads of attention
    with an odd width each lose the same channels; the outputs that a convolution makes of one channel each stay
    together. A pattern with an empty path is that of every dimension of this size, for what is added up has to keep
    the same channels; one with a path, such as that of queries, keys and values together, holds inside of this module.
    """
    found: dict[tuple[str, int], Tensor] = {}
    for path, part in module.named_modules():
        if isinstance(part, nn.modules.conv._ConvNd) and part.groups > 1:
            ins, outs = part.in_channels // part.groups, part.out_channels // part.groups
            if is_depthwise(part):
                if outs > 1:
                    ins_kept = found.get(("", part.groups))
                    ins_kept = even_indices(part.groups, ratio, round_to) if ins_kept is None else ins_kept
                    found["", part.out_channels] = blocks(ins_kept, outs)
            elif round_to > 1 or not (_whole(ins, ratio) and _whole(outs, ratio)):
                found["", part.in_channels], found["", part.out_channels] = _grouped(
                    part.groups, ins, outs, ratio, round_to
                )
        heads, width = heads_of(part), _head_width(part)
        if heads is not None and width is not None and (round_to > 1 or not _whole(width, ratio)):
            # Where as many heads are a multiple of what is rounded to, so are all of them together.
            within = even_indices(width, ratio, round_to // math.gcd(round_to, heads))
            for times in (1, 2, 3):
                count = heads * times
                found["" if times == 1 else path, count * width] = (
                    torch.arange(count)[:, None] * width + within
                ).flatten()
    return found


def told(module: nn.Module, ratio: float) -> dict[tuple[str, int], Tensor]:
    """Return by (path, size) the patterns of dimensions that a module's attributes say it splits.

    Of sizes that it lists, those that some tensor of it has lose channels, and the others, such as one gate for each
    level, stay. Of twice or three times an odd width that it names, each part loses the same channels.
    """
    found: dict[tuple[str, int], Tensor] = {}
    for path, part in module.named_modules():
        sizes = {size for tensor in part.parameters() for size in tensor.shape[:2]}
        for name, value in plain_attributes(part).items():
            many = type(value) in (tuple, list) and len(value) > 1 and all(type(one) is int for one in value)
            if many and sum(value) in sizes:
                starts = [sum(value[:place]) for place in range(len(value))]
                kept = [even_indices(one, ratio) if one in sizes else torch.arange(one) for one in value]
                found[path, sum(value)] = torch.cat([start + one for start, one in zip(starts, kept, strict=True)])
            elif type(value) is int and is_width(name, value) and not _whole(value, ratio):
                for times in (2, 3):
                    if times * value in sizes:
                        within = even_indices(value, ratio)
                        found[path, times * value] = (torch.arange(times)[:, None] * value + within).flatten()
    return found


def _head_width(part: nn.Module) -> int | None:
    """Return the width of an attention's head: what it calls so, or the share of a head in what it projects."""
    width, heads = vars(part).get("head_dim"), heads_of(part)
    if type(width) is int:
        return width
    linear = [child for child in part.children() if isinstance(child, nn.Linear)]
    whole = {child.in_features for child in linear if child.in_features == child.out_features}
    return whole.pop() // heads if heads and len(whole) == 1 and next(iter(whole)) % heads == 0 else None


def _grouped(groups: int, ins: int, outs: int, ratio: float, round_to: int) -> tuple[Tensor, Tensor]:
    """Return which inputs and outputs stay of groups that ``ratio`` does not divide: each group as narrow as can be
    without a remainder, and as many groups as that leaves. Where rounding asks for more channels, the fewest that it
    allows, in groups of any such width; where it allows none, all stay."""
    common = math.gcd(ins, outs)
    shares = [one for one in range(common, 0, -1) if common % one == 0 and one * ratio <= 1 + 1e-9]
    fitting = [
        (one, left)
        for one in shares
        for left in range(math.ceil(groups * one * ratio - 1e-9), groups + 1)
        if left * (ins // one) % round_to == 0 and left * (outs // one) % round_to == 0
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
    """Return larger ratios at which some layer's width is a multiple of ``round_to``, by how many layers' widths are.

    Where widths are sums or halves of each other, ones that are whole go on being so. None is twice as large.
    """
    sizes = [layer.weight.shape[0] for layer in module.modules() if isinstance(layer, CONV_LINEAR)]
    found = {round_to * math.ceil(size * ratio / round_to - 1e-9) / size for size in sizes}
    near = [one for one in found if ratio + 1e-9 < one < min(2 * ratio, 1)]
    return sorted(near, key=lambda one: (-sum(_whole(size, one / round_to) for size in sizes), one))


def blocks(kept: Tensor, size: int) -> Tensor:
    """Return all indices of the kept blocks of ``size`` indices each."""
    return (kept[:, None] * size + torch.arange(size)).flatten()


def _whole(size: int, ratio: float) -> bool:
    return abs(size * ratio - round(size * ratio)) < 1e-9
