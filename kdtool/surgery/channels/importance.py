"""Combine scores of the channels of layers into one score for each channel of a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning.pruner import function

from kdtool.surgery.channels.torch_pruning_adapter import graph_of, module_path

_FILTERS = (function.prune_conv_out_channels, function.prune_linear_out_channels)

_NORMS = (function.prune_batchnorm_out_channels,)

LayerScore = Callable[[str, nn.Module], Tensor]
"""Returns scores [..., channels] of a layer's output channels, by the layer's path and the layer itself."""


def over_filters(group: Any, score: LayerScore) -> Tensor:
    """Return the mean [..., channels] of the scores of all convolutions and linear layers that output these channels.

    ``group`` is a ``torch_pruning.dependency.Group``; layers whose outputs are added are in one group.
    """
    total, count = _sum(group, score, _FILTERS)
    assert count is not None  # the first layer of a group always outputs its channels
    return total / count


def sum_over_filters(group: Any, score: LayerScore) -> Tensor:
    """Return the sum [..., channels] of the scores of which `over_filters` returns the mean."""
    return _sum(group, score, _FILTERS)[0]


def over_norms(group: Any, score: LayerScore) -> Tensor | None:
    """Return the mean [..., channels] of the scores of all batch-norms that a group's channels go through.

    None if a channel goes through no batch-norm.
    """
    total, count = _sum(group, score, _NORMS)
    return total / count if count is not None and bool(count.all()) else None


def filters(layer: nn.Module, weight: Tensor | None = None) -> Tensor:
    """Return the weights of a convolution or linear layer, or a tensor of their shape, as [outputs, weights each]."""
    if weight is None:
        weight = layer.weight.detach()  # type: ignore[operator, union-attr]
    assert weight is not None
    if getattr(layer, "transposed", False):
        weight = weight.transpose(0, 1)
    return weight.flatten(1)


def relative(scores: Tensor) -> Tensor:
    """Return scores divided by their mean, so that the scores of different layers can be compared."""
    return scores / scores.mean().clamp_min(1e-12)


def carried(scores: Callable[[Any], Tensor | None], means: Mapping[str, float]) -> Callable[[Any], Tensor | None]:
    """Return scores with a given mean in each group, for pruning in several steps.

    Scores that are relative to the mean of their group have the mean 1 again after each removal of channels. A layer
    whose channels differ most would then lose channels in every step, until nearly none is left. ``means`` are the mean
    scores of the channels that the step before left, by the path of the group's first layer.
    """

    def rescaled(group: Any) -> Tensor | None:
        group_scores, mean = scores(group), means.get(begins_with(group))
        return group_scores if group_scores is None or mean is None else relative(group_scores) * mean

    return rescaled


def begins_with(group: Any) -> str:
    """Return the path of the first layer of a ``torch_pruning.dependency.Group``."""
    return module_path(graph_of(group), group[0].dep.target.module)


def _sum(group: Any, score: LayerScore, handlers: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    """Return the sum [..., channels] of the scores over the layers of these kinds, and their number [channels].

    The number is None if the group has no such layer.
    """
    size = len(group[0].idxs)
    total, count = torch.zeros(size), None
    for item in group:
        if item.dep.handler not in handlers:
            continue
        layer = item.dep.target.module
        layer_scores = score(module_path(graph_of(group), layer), layer)[..., item.idxs]
        if count is None:
            total, count = torch.zeros(*layer_scores.shape[:-1], size), torch.zeros(size)
        roots = torch.tensor(item.root_idxs)
        total.index_add_(-1, roots, layer_scores)
        count.index_add_(0, roots, torch.ones(len(roots)))
    return total, count
