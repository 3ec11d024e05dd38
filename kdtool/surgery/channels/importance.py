"""Scores of layers' channels gathered over the layers that a group of channels goes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning.pruner import function

_FILTERS = (function.prune_conv_out_channels, function.prune_linear_out_channels)

_NORMS = (function.prune_batchnorm_out_channels,)

LayerScore = Callable[[str, nn.Module], Tensor]
"""Returns scores [..., channels] of a layer's output channels, by the layer's path and the layer itself."""


def over_filters(group: Any, score: LayerScore) -> Tensor:
    """Return the mean [..., channels] of the scores of all convolutions and linear layers that make a group's channels.

    ``group`` is a ``torch_pruning.dependency.Group``; layers whose outputs are added are in one group.
    """
    total, count = _gathered(group, score, _FILTERS)
    assert count is not None  # a group begins with a layer that makes its channels
    return total / count


def sum_over_filters(group: Any, score: LayerScore) -> Tensor:
    """Return the sum [..., channels] where `over_filters` returns the mean."""
    return _gathered(group, score, _FILTERS)[0]


def over_norms(group: Any, score: LayerScore) -> Tensor | None:
    """Return the mean over the batch-norms that a group's channels go through; None where some go through none."""
    total, count = _gathered(group, score, _NORMS)
    return total / count if count is not None and bool(count.all()) else None


def filters(layer: nn.Module, weight: Tensor | None = None) -> Tensor:
    """Return the weights of a convolution or linear layer, or a tensor of their shape, as [outputs, weights of one]."""
    if weight is None:
        weight = layer.weight.detach()  # type: ignore[operator, union-attr]
    assert weight is not None
    if getattr(layer, "transposed", False):
        weight = weight.transpose(0, 1)
    return weight.flatten(1)


def relative(scores: Tensor) -> Tensor:
    """Return scores divided by their mean, so that those of different layers can be compared."""
    return scores / scores.mean().clamp_min(1e-12)


def carried(scores: Callable[[Any], Tensor | None], means: Mapping[str, float]) -> Callable[[Any], Tensor | None]:
    """Return scores that go on from what was left after a removal, where they are relative to the mean of their group.

    That mean would rise with each removal, and a layer whose channels differ most would go on losing its least ones
    until nearly none is left. ``means`` are those of the channels that were left, by the layer that a group begins
    with: what is left keeps it.
    """

    def going_on(group: Any) -> Tensor | None:
        found, mean = scores(group), means.get(begins_with(group))
        return found if found is None or mean is None else relative(found) * mean

    return going_on


def begins_with(group: Any) -> str:
    """Return the path of the layer that a group begins with."""
    path: str = group._DG._module2name.get(group[0].dep.target.module, "")
    return path


def _gathered(group: Any, score: LayerScore, handlers: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    """Return sums of scores, and over how many layers they go."""
    size = len(group[0].idxs)
    total, count = torch.zeros(size), None
    for item in group:
        if item.dep.handler not in handlers:
            continue
        layer = item.dep.target.module
        found = score(group._DG._module2name.get(layer, ""), layer)[..., item.idxs]
        if count is None:
            total, count = torch.zeros(*found.shape[:-1], size), torch.zeros(size)
        roots = torch.tensor(item.root_idxs)
        total.index_add_(-1, roots, found)
        count.index_add_(0, roots, torch.ones(len(roots)))
    return total, count
