"""Importance Estimation for Neural Network Pruning (Molchanov et al., 2019, arXiv:1906.10771)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from kdtool import ChannelPruner, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Run
    from kdtool.surgery import Scores


MOST_BATCHES, LEAST_BATCHES, ENOUGH_MACS = 10, 2, 600_000_000
"""Batches for a search of a size, and the multiply-accumulates of one image in all of them together."""


class Taylor(ChannelPruner):
    """Remove the filters that change the loss least, to first order, then retrain (Molchanov et al., 2019).

    s_j = mean over batches of (sum_w g_w w)^2 over the weights w of filter j and its bias, where g is the gradient of
    the cross-entropy of one batch of the train split: the squared first-order change of the loss if the filter were
    zero. Filters whose outputs are added are removed together; their changes are summed before the square.
    """

    batches: int = option(10, minimum=1, help="batches of the train split to compute the loss on")

    @classmethod
    def ladders(cls, network: Network) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Return fractions of the MACs to remove, scored by so many batches as take seconds."""
        batches = few_batches(network)
        return [[{**step, "batches": batches} for step in ladder] for ladder in super().ladders(network)]

    def importance(self, run: Run, network: Network) -> Scores:
        """Return a function that scores each filter by its squared change of the loss."""
        return partial(squared, changes=changes(network.module, train_batches(run, self.batches)))


def few_batches(network: Network) -> int:
    """Return on how many batches channels are scored when only a size is sought: fewer for large networks."""
    from kdtool.models import macs

    return max(LEAST_BATCHES, min(MOST_BATCHES, ENOUGH_MACS // macs(network.module, network.architecture.input)))


def train_batches(run: Run, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``count`` batches of the images that have a label and their labels, drawn with the seed of the training."""
    import itertools

    import torch

    train, size = run.data.train.labelled(), run.training.batch_size
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(run.training.seed))
    indexed = train.batches(size, order=order[: count * size])
    yield from itertools.islice(((images, labels) for _, images, labels in indexed), count)


def changes(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return sum_w g_w w of every filter, [batches, filters], by the path of the layer.

    Layers that compute the weights that they use (standardised convolutions) have no gradients of these. For them it is
    the sum over images and positions of g_y y, where y is the filter's output, which is the same number. Batch-norms
    use their running statistics: with those of the batch the loss would not depend on a filter's scale.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    from kdtool.models import computed_weights
    from kdtool.surgery import filters

    module = copy.deepcopy(module).eval().requires_grad_(True)
    conv_linear = (nn.modules.conv._ConvNd, nn.Linear)
    layers = {path: part for path, part in module.named_modules() if isinstance(part, conv_linear)}
    rows: dict[str, list[Tensor]] = {path: [] for path in layers}
    outputs: dict[str, list[Tensor]] = {path: [] for path in computed_weights(module)}
    for path, kept in outputs.items():
        layers[path].register_forward_hook(partial(_keep, kept))
    for images, labels in batches:
        module.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        for path, layer in layers.items():
            if path in outputs:
                rows[path].append(_change_of(layer, outputs[path]))
                outputs[path].clear()
                continue
            weight = layer.weight.detach()
            # A layer that the network does not call has no gradient: the loss does not depend on it.
            gradient = torch.zeros_like(weight) if layer.weight.grad is None else layer.weight.grad
            change = filters(layer, gradient * weight).sum(1)
            if layer.bias is not None and layer.bias.grad is not None:
                change += layer.bias.grad * layer.bias.detach()
            rows[path].append(change)
    return {path: torch.stack(per_batch) for path, per_batch in rows.items()}


def _keep(kept: list[Tensor], layer: nn.Module, inputs: object, output: Tensor) -> Tensor:
    """Keep an output of a layer, and its gradient; return a copy, which an activation behind it may overwrite."""
    output.retain_grad()
    kept.append(output)
    return output.clone()


def _change_of(layer: nn.Module, outputs: Iterable[Tensor]) -> Tensor:
    """Return the sum of g_y y over the outputs of a layer, [filters]."""
    import torch
    from torch import nn

    change = torch.zeros(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore
    for output in outputs:
        dim = output.dim() - 1 if isinstance(layer, nn.Linear) else 1
        if output.grad is not None:
            change += (output.grad * output.detach()).transpose(0, dim).flatten(1).sum(1)
    return change


def squared(group: Any, changes: dict[str, Tensor]) -> Tensor:
    """Return the mean over batches of the squared change by a group's filters together, [channels]."""
    from kdtool.surgery import sum_over_filters

    return sum_over_filters(group, lambda path, layer: changes[path]).square().mean(0)
