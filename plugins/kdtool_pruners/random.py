"""The control of every pruner: weights drawn by chance (Frankle and Carbin, 2019, arXiv:1803.03635, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdtool import MaskPruner

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run


class Random(MaskPruner):
    """Set weights drawn by chance to zero, then retrain the rest: what a pruner has to do better than.

    Every weight has the score u ~ U(0, 1), drawn with the training's seed.
    """

    def scores(self, run: Run, network: Network) -> Mapping[str, Tensor]:
        """Return random numbers."""
        import torch

        from kdtool.training import prunable

        chance = torch.Generator().manual_seed(run.training.seed)
        return {name: torch.rand(weight.shape, generator=chance) for name, weight in prunable(network.module).items()}
