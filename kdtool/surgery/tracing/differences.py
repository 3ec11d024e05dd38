"""Arithmetic of the flow: where two images in one batch differ, and what that says about channels."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def noise(path: str, call: int, shape: Sequence[int], salt: int = 0) -> Tensor:
    """Return what the layer at ``path`` answers when it is called for the ``call``-th time: the same every time.

    The numbers lie between 0.5 and 1: positive, so that no activation stops a difference.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{path} {call} {salt}".encode()))
    return torch.rand(tuple(shape), generator=generator).mul_(0.5).add_(0.5)


def difference(x: Tensor, dim: int | None = None) -> Tensor:
    """Return where the two halves of a batch [2b, ...] differ, [b, ...].

    A channel that comes from a lost one differs by a good part of itself. Small differences are those of a mixture;
    where ``dim`` names the channels, it moves to the end, and a position with a small difference differs as a whole.
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
    """Return the channels of rows [..., channels] that do not differ.

    Rows that differ as a whole say nothing (a layer that mixes tokens sees the lost channels as rows), nor do rows that
    do not differ at all where others do (a class token). None where all differ as a whole or not in the same channels:
    something in between (attention, say) mixed the channels.
    """
    rows = rows.flatten(0, -2)
    partly = rows[~rows.all(-1)]
    if not len(partly):
        return None
    telling = partly[partly.any(-1)]
    if not len(telling):
        return torch.arange(rows.shape[-1])
    share = telling.float().mean(0)
    # A share in between is the mark of chance: a mean that happens to come out the same.
    if ((share > 0.1) & (share < 0.9)).any():
        return None
    kept = (share < 0.5).nonzero().flatten()
    return kept if len(kept) else None


def output_shape(layer: nn.Module, forward: Callable[..., Any], x: Tensor, args: Any, kwargs: Any) -> tuple[int, ...]:
    """Return the shape of a mixing layer's output for the input, without computing it where that is easy."""
    if isinstance(layer, nn.Linear):
        return (*x.shape[:-1], layer.out_features)
    if type(layer) is nn.Conv2d and not isinstance(layer.padding, str) and x.dim() == 4:
        sides = [
            (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for side, pad, dilation, kernel, stride in zip(
                x.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
            )
        ]
        return (x.shape[0], layer.out_channels, *sides)
    y = forward(x[:1], *args, **kwargs)
    return (x.shape[0], *y.shape[1:])


def signature(x: Tensor, dim: int) -> Tensor:
    """Return the mean of each channel of the first half of a batch."""
    first = x.chunk(2)[0].movedim(dim, -1)
    return first.flatten(0, -2).double().mean(0)


def kept_rows(rows: Tensor, dim: int) -> dict[int, Tensor]:
    """Return by dimension of the layer's input what stays where rows [b, ..., channels] differ as a whole.

    Empty where that is not a matter of whole indices of one dimension.
    """
    full = rows.all(-1)
    found = {}
    for place in range(1, full.dim()):
        lost = full.movedim(place, 0).flatten(1).all(1)
        if lost.any() and bool((full.movedim(place, -1) == lost).all()):
            # Of the input, the channels' dimension stands at ``dim``.
            at = place if dim == -1 or place < dim else place + 1
            found[at] = (~lost).nonzero().flatten()
    return found


def restricted(x: Tensor, kept: dict[int, Tensor]) -> Tensor:
    """Return the kept indices of some dimensions."""
    for dim, indices in kept.items():
        x = x.index_select(dim, indices)
    return x
