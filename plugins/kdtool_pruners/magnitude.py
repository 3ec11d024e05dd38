"""Magnitude pruning with retraining (Han, Pool, Tran and Dally, 2015, arXiv:1506.02626)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from kdtool import MaskPruner

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run


class Magnitude(MaskPruner):
    """Set the smallest weights of the whole network to zero, then retrain the rest (Han et al., 2015).

    Of the n weights of all convolutions, linear, attention and recurrent layers (biases and norms stay), the
    round(ratio * n) with the smallest |w| become zero, and stay zero in the retraining. Weights that are already zero
    count as removed.
    """

    also_called: ClassVar[tuple[str, ...]] = ("l1", "unstructured", "l1-unstructured", "weights", "sparse")

    def scores(self, run: Run, network: Network) -> Mapping[str, Tensor]:
        """Return |w| by the name of the weight tensor."""
        from kdtool.training import prunable

        return {name: weight.abs() for name, weight in prunable(network.module).items()}
