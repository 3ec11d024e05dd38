"""Which indices of a dimension stay."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdtool.structure.flow import is_depthwise
from kdtool.structure.slicing import heads_of


def evenly(size: int, ratio: float, round_to: int = 1) -> Tensor:
    """Return evenly spaced indices of ``ratio * size`` out of ``size``, rounded up to a multiple of ``round_to``.

    Without rounding the pattern of a smaller size is the beginning of that of a larger one, so that concatenated
    and split dimensions keep the same channels.
    """
    if round_to == 1:
        edges = [math.ceil(i * ratio - 1e-9) for i in range(size + 1)]
        return torch.tensor([i for i in range(size) if edges[i + 1] > edges[i]], dtype=torch.long)
    count = min(size, max(round_to, round_to * math.ceil(size * ratio / round_to - 1e-9)))
    return torch.arange(count) * size // count


def uneven(module: nn.Module, ratio: float) -> dict[tuple[str, int], Tensor]:
    """Return by (path, size) the patterns of dimensions whose groups `evenly` would leave with different sizes.

    Groups of a convolution with an odd width go as a whole; heads of attention with an odd width each lose the same
    channels; the outputs that a convolution makes of one channel each stay together. A pattern with an empty path is
    that of every dimension of this size, for what is added up has to keep the same channels; one with a path, such as
    that of queries, keys and values together, holds inside of this module.
    """
    found: dict[tuple[str, int], Tensor] = {}
    for path, part in module.named_modules():
        if isinstance(part, nn.modules.conv._ConvNd) and part.groups > 1:
            ins, outs = part.in_channels // part.groups, part.out_channels // part.groups
            if is_depthwise(part):
                if outs > 1:
                    ins_kept = found.get(("", part.groups))
                    ins_kept = evenly(part.groups, ratio) if ins_kept is None else ins_kept
                    found["", part.out_channels] = blocks(ins_kept, outs)
            elif not (_whole(ins, ratio) and _whole(outs, ratio)):
                groups = evenly(part.groups, ratio)
                found["", part.in_channels] = blocks(groups, ins)
                found["", part.out_channels] = blocks(groups, outs)
        heads, width = heads_of(part), getattr(part, "head_dim", None)
        if heads is not None and type(width) is int and not _whole(width, ratio):
            within = evenly(width, ratio)
            for times in (1, 2, 3):
                count = heads * times
                found["" if times == 1 else path, count * width] = (
                    torch.arange(count)[:, None] * width + within
                ).flatten()
    return found


def blocks(kept: Tensor, size: int) -> Tensor:
    """Return all indices of the kept blocks of ``size`` indices each."""
    return (kept[:, None] * size + torch.arange(size)).flatten()


def _whole(size: int, ratio: float) -> bool:
    return abs(size * ratio - round(size * ratio)) < 1e-9
