"""Pruning Filters for Efficient ConvNets (Li, Kadav, Durdanovic, Samet and Graf, 2017, arXiv:1608.08710)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import ChannelPruner

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run
    from kdtool.surgery import Scores


class FilterL1(ChannelPruner):
    """Remove the filters with the smallest L1 norms, then retrain the smaller network (Li et al., 2017).

    The norm of a filter is the sum of its absolute weights, s_j = sum |F_j|. Filters whose outputs are added are
    removed together, by the mean of their scores. The paper prunes each layer by its own ratio. Here the norms, divided
    by the mean of their layer, are compared over the whole network; with ``scope="layer"`` every layer loses the same
    fraction instead.
    """

    also_called: ClassVar[tuple[str, ...]] = (
        "l1",
        "l1-norm",
        "structured",
        "ln-structured",
        "filter",
        "channel",
        "channels",
    )

    relative_scores: ClassVar[bool] = True

    def importance(self, run: Run, network: Network) -> Scores:
        """Return `filter_norms`, which scores each filter by its norm."""
        return filter_norms


def filter_norms(group: Any) -> Tensor:
    """Return L1 norms [filters] relative to their layer's mean, averaged over layers whose outputs are added."""
    from kdtool.surgery import filters, over_filters, relative

    return over_filters(group, lambda path, layer: relative(filters(layer).abs().sum(1)))
