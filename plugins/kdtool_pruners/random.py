"""Random pruning, the control for every other pruner (Frankle and Carbin, 2019, arXiv:1803.03635, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdtool import MaskPruner

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run


class Random(MaskPruner):
    """Set random weights to zero, then retrain the rest: the control that a pruner has to beat.

    The score of every weight is u ~ U(0, 1), drawn with the seed of the training.
    """

    def scores(self, run: Run, network: Network) -> Mapping[str, Tensor]:
        """Return random scores by the name of the weight tensor."""
        import torch

        from kdtool.training import prunable

        generator = torch.Generator().manual_seed(run.training.seed)
        return {
            name: torch.rand(weight.shape, generator=generator) for name, weight in prunable(network.module).items()
        }
