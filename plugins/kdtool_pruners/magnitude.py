"""Magnitude pruning with retraining (Han, Pool, Tran and Dally, 2015, arXiv:1506.02626)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdtool import MaskPruner

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run


class Magnitude(MaskPruner):
    """Set the smallest weights of the whole network to zero, then retrain the rest (Han et al., 2015).

    Of all n weights of convolutions and linear layers together (biases and norms stay), the round(ratio * n) with the
    least |w| become zero, and stay zero in retraining. Where the network already has zeros they count as removed.
    """

    def scores(self, run: Run, network: Network) -> Mapping[str, Tensor]:
        """Return |w|."""
        from kdtool.training import prunable

        return {name: weight.abs() for name, weight in prunable(network.module).items()}
