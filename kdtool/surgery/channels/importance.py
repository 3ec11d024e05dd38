"""Combine scores of the channels of layers into one score for each channel of a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch_pruning import ops
from torch_pruning.pruner import function

from kdtool.models.layers import CONV_LINEAR
from kdtool.plugins.method_code import MethodError
from kdtool.surgery.channels.torch_pruning_adapter import graph_of, module_path, parameter_path

if TYPE_CHECKING:
    from kdtool.surgery.channels.groups import Group, Scores

_FILTERS = (function.prune_conv_out_channels, function.prune_linear_out_channels)

_NORMS = (function.prune_batchnorm_out_channels,)

_WITH_TENSORS = (ops.OPTYPE.BN, ops.OPTYPE.LN, ops.OPTYPE.GN, ops.OPTYPE.IN, ops.OPTYPE.PRELU)
"""Kinds of layers that have one element of each parameter for a channel."""

LayerScore = Callable[[str, nn.Module], Tensor]
"""Returns scores [..., channels] of a layer's output channels, by the layer's path and the layer itself."""


ParameterScore = Callable[[str, Tensor], Tensor]
"""Returns scores of the elements of a parameter, in its shape, by its name and the parameter itself."""


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


def sum_over_parameters(group: Any, score: ParameterScore) -> Tensor:
    """Return the sum [channels] of the scores of all elements of parameters that are removed with a channel.

    These are filters and biases of the layers that output the channel, scales and shifts of norms, weights of the
    layers that read the channel, and parameters of no layer, such as the scales of a residual branch. An element
    between two channels of the group counts for both.
    """
    total = torch.zeros(len(group[0].idxs))
    for item in group:
        node, idxs = item.dep.target, torch.tensor(item.idxs)
        for scores in _by_channel(graph_of(group), node, item.dep.handler, score):
            if len(scores) > 1 or len(total) == 1:  # a slope that all channels share is removed with none
                total.index_add_(0, torch.tensor(item.root_idxs), scores[idxs])
    return total


def _by_channel(graph: Any, node: Any, handler: Any, score: ParameterScore) -> list[Tensor]:
    """Return the summed scores [channels of the node] of each parameter at a node of the graph."""
    layer = node.module
    if node.type == ops.OPTYPE.PARAMETER:
        scores = score(parameter_path(graph, layer), layer.detach())
        return [scores.movedim(node.pruning_dim, 0).reshape(scores.shape[node.pruning_dim], -1).sum(1)]
    path, tensors = module_path(graph, layer), {name: getattr(layer, name, None) for name in ("weight", "bias")}
    scores_of = {name: score(f"{path}.{name}", part.detach()) for name, part in tensors.items() if part is not None}
    if isinstance(layer, CONV_LINEAR):
        outputs = graph.is_out_channel_pruning_fn(handler)
        filters_or_inputs = _per_channel(layer, scores_of["weight"], outputs=outputs)
        return [filters_or_inputs, scores_of["bias"]] if outputs and "bias" in scores_of else [filters_or_inputs]
    if node.type in _WITH_TENSORS:
        return [scores.reshape(-1, scores.shape[-1]).sum(0) for scores in scores_of.values()]
    return []


def _per_channel(layer: nn.Module, scores: Tensor, *, outputs: bool) -> Tensor:
    """Return the sums of scores in the shape of a layer's weight over all but its output or its input channels."""
    groups = getattr(layer, "groups", 1)
    blocks = scores.reshape(groups, scores.shape[0] // groups, scores.shape[1], -1)
    first = outputs != getattr(layer, "transposed", False)  # the weight of a transposed convolution begins with inputs
    return blocks.sum((2, 3) if first else (1, 3)).flatten()


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


def scores_of(group: Group, importance: Scores) -> Tensor | None:
    """Return the scores [channels] of a group's channels, None if they have to stay.

    Raises:
        MethodError: ``importance`` gives something else, or numbers that are not finite.
    """
    try:
        scores: Any = importance(group.graph)
    except IndexError:
        return None  # the graph leads to channels that a layer does not have
    if scores is None:
        return None
    channels = f"for the {group.size} channels of {begins_with(group.graph)}"
    if not isinstance(scores, Tensor) or scores.shape != (group.size,):
        wrong = f"a tensor {list(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise MethodError(
            f"importance gave {wrong} {channels}; it gives a tensor [channels], or None if they must stay"
        )
    if not scores.isfinite().all():
        raise MethodError(
            f"importance gave scores {channels} that are not finite; look at the network's weights and gradients"
        )
    return scores


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


def narrowed_by(group: Any, *, depthwise: bool) -> set[str]:
    """Return the paths of the layers that lose output channels with a ``torch_pruning.dependency.Group``.

    ``depthwise`` includes depthwise convolutions, which have the channels of the layer before them.
    """
    handlers = (*_FILTERS, function.prune_depthwise_conv_out_channels) if depthwise else _FILTERS
    return {module_path(graph_of(group), item.dep.target.module) for item in group if item.dep.handler in handlers}
