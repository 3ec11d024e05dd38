"""Isomorphic Pruning for Vision Models (Fang, Ma, Mi and Wang, 2024, arXiv:2407.04616)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import ChannelPruner, option
from kdtool_pruners.group_taylor import first_order, gradients
from kdtool_pruners.taylor import few_batches, train_batches

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run
    from kdtool.surgery import Scores


class Isomorphic(ChannelPruner):
    """Compare channels only with those of layers coupled in the same way; each kind loses the same part (Fang, 2024).

    Two groups of coupled layers are of one kind if their graphs are isomorphic: the same kinds of layers, connected in
    the same way. In each kind the fraction r of the channels with the lowest scores is removed; r is chosen so that
    ``ratio`` of the network is gone. The score is that of group-taylor, or the group norm
    s_j = sum_w |w|^p over all weights w that are removed with channel j, without biases, divided by the group's mean.
    The authors also remove attention heads, which stay here. ``scope="isomorphic"`` of the other pruners compares their
    scores in the same way.
    """

    relative_scores: ClassVar[bool] = True

    scope: str = option(
        "isomorphic",
        choices=("global", "layer", "isomorphic"),
        help="compare each channel with those of layers with the same structure, as the paper, with all, or with those "
        "of its layer",
    )
    score: str = option("taylor", choices=("taylor", "l2", "l1"), help="score of a channel: group Taylor or group norm")
    batches: int = option(10, minimum=1, help="batches of the train split for taylor; the authors take 50")

    @classmethod
    def ladders(cls, network: Network) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Return fractions of the MACs to remove, scored by so many batches as take seconds."""
        batches = few_batches(network)
        return [[{**step, "batches": batches} for step in ladder] for ladder in super().ladders(network)]

    def importance(self, run: Run, network: Network) -> Scores:
        """Return a function that scores each channel by all parameters that are removed with it."""
        if self.score == "taylor":
            return partial(first_order, gradients=gradients(network.module, train_batches(run, self.batches)))
        return partial(group_norm, power={"l1": 1, "l2": 2}[self.score])


def group_norm(group: Any, power: int) -> Tensor:
    """Return sum_w |w|^power [channels] over the weights that go with a channel, relative to the group's mean."""
    from kdtool.surgery import relative, sum_over_parameters

    def terms(name: str, weight: Tensor) -> Tensor:
        return weight.new_zeros(weight.shape) if name.endswith(".bias") else weight.abs() ** power

    return relative(sum_over_parameters(group, terms))
