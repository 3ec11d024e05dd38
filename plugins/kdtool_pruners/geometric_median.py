"""Filter Pruning via Geometric Median (He, Liu, Wang, Hu and Yang, 2019, arXiv:1811.00250)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import ChannelPruner

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run
    from kdtool.surgery import Scores


class GeometricMedian(ChannelPruner):
    """Remove the filters with the smallest distances to all others of their layer, then retrain (He et al., 2019).

    s_j = sum_k ||F_j - F_k||_2 over the filters k of the layer. It is smallest for filters near the geometric median,
    which the others can replace best. Like the norms of filter-l1, it is divided by the mean of its layer and averaged
    over layers whose outputs are added.
    """

    also_called: ClassVar[tuple[str, ...]] = ("fpgm",)

    relative_scores: ClassVar[bool] = True

    def importance(self, run: Run, network: Network) -> Scores:
        """Return `distances`, which scores each filter by its distances."""
        return distances


def distances(group: Any) -> Tensor:
    """Return the sums [filters] of a filter's distances to all filters of its layer, relative to the layer's mean."""
    import torch

    from kdtool.surgery import filters, over_filters, relative

    return over_filters(group, lambda path, layer: relative(torch.cdist(filters(layer), filters(layer)).sum(1)))
