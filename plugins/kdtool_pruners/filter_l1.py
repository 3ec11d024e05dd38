"""Pruning Filters for Efficient ConvNets (Li, Kadav, Durdanovic, Samet and Graf, 2017, arXiv:1608.08710)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import ChannelPruner

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run
    from kdtool.surgery import Scores


class FilterL1(ChannelPruner):
    """Remove the filters with the smallest L1 norms for good, then retrain the rest (Li et al., 2017).

    The norm of a filter is the sum of its absolute weights, s_j = sum |F_j|. Filters whose outputs are added go
    together, by the mean of theirs. The paper prunes each layer by a ratio of its own; here the norms, divided by
    their layer's mean, are compared over the whole network, or every layer loses the same part (``scope="layer"``).
    """

    relative_scores: ClassVar[bool] = True

    def importance(self, run: Run, network: Network) -> Scores:
        """Return the norms."""
        return filter_norms


def filter_norms(group: Any) -> Tensor:
    """Return the L1 norm of each filter relative to its layer's mean, averaged over layers whose outputs are added."""
    from kdtool.surgery import filters, over_filters, relative

    return over_filters(group, lambda path, layer: relative(filters(layer).abs().sum(1)))
