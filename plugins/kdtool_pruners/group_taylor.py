"""First-order importance of groups of coupled parameters (Molchanov et al., 2019, arXiv:1906.10771).

The sum goes over all parameters that are removed together, as in LLM-Pruner: On the Structural Pruning of Large
Language Models (Ma, Fang and Wang, 2023, arXiv:2305.11627) and in torch_pruning's GroupTaylorImportance.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import ChannelPruner, option
from kdtool_pruners.taylor import few_batches, train_batches

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Run
    from kdtool.surgery import Scores


class GroupTaylor(ChannelPruner):
    """Remove the channels whose parameters in all coupled layers change the loss least, then retrain (Ma et al., 2023).

    s_j = sum_w |g_w w| over all parameters w that are removed with channel j: the filters and biases of the layers that
    output it, the scales and shifts of norms, and the weights of the layers that read it. g is the mean gradient of the
    cross-entropy over batches of the train split. As in torch_pruning, it is the sum of absolute values, and not the
    absolute value of the sum, divided by the mean of the group. torch_pruning leaves out biases, batch-norms and
    depthwise filters. ``taylor`` counts only the filters.
    """

    relative_scores: ClassVar[bool] = True

    batches: int = option(10, minimum=1, help="batches of the train split to compute the loss on; the authors take 50")

    @classmethod
    def ladders(cls, network: Network) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Return fractions of the MACs to remove, scored by so many batches as take seconds."""
        batches = few_batches(network)
        return [[{**step, "batches": batches} for step in ladder] for ladder in super().ladders(network)]

    def importance(self, run: Run, network: Network) -> Scores:
        """Return a function that scores each channel by the first-order terms of its parameters."""
        return partial(first_order, gradients=gradients(network.module, train_batches(run, self.batches)))


def gradients(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return the mean over batches of the gradients of the cross-entropy, by the names of the parameters.

    For layers that compute the weights that they use (standardised convolutions), ``PATH.weight`` is the gradient of
    the weight in use. Batch-norms use their running statistics, as in the authors' code.
    """
    import torch
    from torch.nn import functional as F

    from kdtool.models import computed_weights, keep_used_weights

    module = copy.deepcopy(module).eval().requires_grad_(True)
    used: dict[str, list[Tensor]] = {
        path: [] for path, weight in computed_weights(module).items() if weight is not None
    }
    for path, kept in used.items():
        keep_used_weights(module.get_submodule(path), kept)
    module.zero_grad()
    sums: dict[str, Tensor] = {}
    count = 0
    for images, labels in batches:
        F.cross_entropy(module(images), labels).backward()
        count += 1
        for path, kept in used.items():
            for weight in kept:
                if weight.grad is not None and not weight.is_leaf:
                    sums[f"{path}.weight"] = sums.get(f"{path}.weight", torch.zeros(())) + weight.grad
            kept.clear()
    own = {name: weight.grad for name, weight in module.named_parameters(remove_duplicate=False)}
    return {name: grad / count for name, grad in {**own, **sums}.items() if grad is not None}


def first_order(group: Any, gradients: Mapping[str, Tensor]) -> Tensor:
    """Return sum_w |g_w w| [channels] over the parameters that go with a channel, relative to the group's mean."""
    from kdtool.surgery import relative, sum_over_parameters

    def terms(name: str, weight: Tensor) -> Tensor:
        gradient = gradients.get(name)
        return (gradient * weight).abs() if gradient is not None else weight.new_zeros(weight.shape)

    return relative(sum_over_parameters(group, terms))
