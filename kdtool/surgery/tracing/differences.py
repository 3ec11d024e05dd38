"""Arithmetic of the flow: where the two images of a batch differ, and what that says about channels."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.models.layers import convolved_side


def noise(path: str, call: int, shape: Sequence[int], salt: int = 0) -> Tensor:
    """Return random numbers that depend only on a layer's path, the number of its call, the shape and ``salt``.

    The numbers lie between 0.5 and 1. They are positive, so that no activation function stops a difference.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{path} {call} {salt}".encode()))
    return torch.rand(tuple(shape), generator=generator).mul_(0.5).add_(0.5)


def difference(x: Tensor, dim: int | None = None) -> Tensor:
    """Return where the two halves of a batch [2b, ...] differ, as booleans [b, ...].

    A channel that comes from a lost one differs by a large part of its value. A small difference means that lost and
    kept channels were mixed. If ``dim``, the dimension of the channels, is given, it moves to the end, and a position
    with a small difference counts as different in all channels.
    """
    first, second = x.chunk(2)
    if not x.is_floating_point():
        differs, vague = first != second, torch.zeros(first.shape, dtype=torch.bool)
    else:
        change = (first - second).abs_().div_(first.abs().add_(second.abs()).clamp_min_(1e-6))
        differs = (change > 1e-2) | change.isnan()
        vague = (change > 1e-6) & ~differs
    if dim is None:
        return differs | vague
    rows = differs.movedim(dim, -1)
    return rows | vague.movedim(dim, -1).any(-1, keepdim=True)


def keeps(rows: Tensor) -> Tensor | None:
    """Return the channels that do not differ in ``rows`` [..., channels], or None if the rows do not agree on them.

    Rows that differ in all channels are ignored: a layer that mixes tokens sees the lost channels as rows. So are rows
    without any difference, such as a class token, if other rows have one. None means that something in between, such as
    attention, mixed the channels, or that no channel is left.
    """
    rows = rows.flatten(0, -2)
    partly = rows[~rows.all(-1)]
    if not len(partly):
        return None
    telling = partly[partly.any(-1)]
    if not len(telling):
        return torch.arange(rows.shape[-1])
    share = telling.float().mean(0)
    # A share in between arises by chance, for example where a mean happens to come out the same in both images.
    if ((share > 0.1) & (share < 0.9)).any():
        return None
    kept = (share < 0.5).nonzero().flatten()
    return kept if len(kept) else None


def output_shape(layer: nn.Module, forward: Callable[..., Any], x: Tensor, args: Any, kwargs: Any) -> tuple[int, ...]:
    """Return the shape of a convolution's or linear layer's output for ``x``, without computing it where possible."""
    if isinstance(layer, nn.Linear):
        return (*x.shape[:-1], layer.out_features)
    if type(layer) is nn.Conv2d and not isinstance(layer.padding, str) and x.dim() == 4:
        options = (layer.kernel_size, layer.padding, layer.stride, layer.dilation)
        return (x.shape[0], layer.out_channels, *map(convolved_side, x.shape[2:], *options))
    y = forward(x[:1], *args, **kwargs)
    return (x.shape[0], *y.shape[1:])


def signature(x: Tensor, dim: int) -> Tensor:
    """Return the mean of each channel over the first half of a batch; ``dim`` is the dimension of the channels."""
    first = x.chunk(2)[0].movedim(dim, -1)
    return first.flatten(0, -2).double().mean(0)


def kept_rows(rows: Tensor, dim: int) -> dict[int, Tensor]:
    """Return which indices stay, by dimension of a layer's input, where ``rows`` [b, ..., channels] differ as a whole.

    ``dim`` is the dimension of the channels in the input. The result is empty unless the rows that differ are whole
    indices of one dimension.
    """
    full = rows.all(-1)
    kept = {}
    for row_dim in range(1, full.dim()):
        lost = full.movedim(row_dim, 0).flatten(1).all(1)
        if lost.any() and bool((full.movedim(row_dim, -1) == lost).all()):
            # In the input, the channels are not at the end but at ``dim``.
            input_dim = row_dim if dim == -1 or row_dim < dim else row_dim + 1
            kept[input_dim] = (~lost).nonzero().flatten()
    return kept


def restricted(x: Tensor, kept: dict[int, Tensor]) -> Tensor:
    """Return a tensor reduced to the kept indices of each dimension in ``kept``."""
    for dim, indices in kept.items():
        x = x.index_select(dim, indices)
    return x
