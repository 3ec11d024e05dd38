"""Name the source of the method here: authors, title, year, arXiv number."""

from collections.abc import Mapping

from torch import Tensor

from kdtool import MaskPruner, Network, Run
from kdtool.training import prunable


class Relative(MaskPruner):
    """Set the weights to zero that are small beside the others of their layer, then retrain the rest."""

    def scores(self, run: Run, network: Network) -> Mapping[str, Tensor]:
        return {name: weight.abs() / weight.std() for name, weight in prunable(network.module).items()}
