"""Importance Estimation for Neural Network Pruning (Molchanov et al., 2019, arXiv:1906.10771)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from kdtool import ChannelPruner, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Run
    from kdtool.surgery import Scores


class Taylor(ChannelPruner):
    """Remove the filters without which the loss changes least, to first order, then retrain (Molchanov et al., 2019).

    s_j = mean over batches of (sum_w g_w w)^2 over the weights w of filter j and its bias, with g the gradient of the
    cross-entropy of one batch of the train split: what the loss would change by if the filter were zero, squared.
    Filters whose outputs are added go together, by the sum of theirs inside of the square.
    """

    batches: int = option(10, minimum=1, help="batches of the train split that the loss is taken of")

    def importance(self, run: Run, network: Network) -> Scores:
        """Return the squared changes."""
        import itertools

        import torch

        train, size = run.data.train, run.training.batch_size
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(run.training.seed))
        found = train.batches(size, order=order[: self.batches * size])
        batches = itertools.islice(((images, labels) for _, images, labels in found), self.batches)
        return partial(squared, changes=changes(network.module, batches))


def changes(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return by layer sum_w g_w w of every filter, [batches, outputs].

    Statistics of batch-norm stay: with those of the batch, the loss would not see the scale of a filter at all.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    from kdtool.surgery import filters

    module = copy.deepcopy(module).eval().requires_grad_(True)
    mixing = (nn.modules.conv._ConvNd, nn.Linear)
    layers = {path: part for path, part in module.named_modules() if isinstance(part, mixing)}
    found: dict[str, list[Tensor]] = {path: [] for path in layers}
    for images, labels in batches:
        module.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        for path, layer in layers.items():
            assert layer.weight.grad is not None
            change = filters(layer, layer.weight.grad * layer.weight.detach()).sum(1)
            if layer.bias is not None and layer.bias.grad is not None:
                change += layer.bias.grad * layer.bias.detach()
            found[path].append(change)
    return {path: torch.stack(rows) for path, rows in found.items()}


def squared(group: Any, changes: dict[str, Tensor]) -> Tensor:
    """Return the mean over batches of the squared change that a group's filters make together."""
    from kdtool.surgery import sum_over_filters

    return sum_over_filters(group, lambda path, layer: changes[path]).square().mean(0)
