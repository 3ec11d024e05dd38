"""The Lottery Ticket Hypothesis (Frankle and Carbin, 2019, arXiv:1803.03635).

Rewinding to an early epoch in place of the first weights: Frankle, Dziugaite, Roy and Carbin, Linear Mode Connectivity
and the Lottery Ticket Hypothesis, 2020, arXiv:1912.05671.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdtool import Error, MaskPruner, UsageError, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run


class Lottery(MaskPruner):
    """Set the smallest weights to zero, the rest back to what they began with, and train; again and again.

    In each of n rounds the trained weights say which go, by |w|, so that the part 1 - (1 - ratio)^(k/n) is gone after
    round k: every round takes the same part of what is left. The others go back to the early weights that the
    checkpoint keeps (``kdtool teacher --keep-init``, or ``--keep-epoch``), and are trained for ``--epochs``.
    """

    steps: int = option(3, minimum=1, help="how many rounds, each of which trains from the early weights")
    teacher: bool = option(False, help="train with the unpruned model as teacher, or with the labels alone")

    def scores(self, run: Run, network: Network) -> Mapping[str, Tensor]:
        """Return |w|."""
        from kdtool.training import prunable

        return {name: weight.abs() for name, weight in prunable(network.module).items()}

    def sparsities(self, begin: float) -> list[float]:
        """Return 1 - (1 - ratio)^(k/n), from what is zero already on."""
        begin = min(begin, self.ratio)
        left = (1 - self.ratio) / (1 - begin)
        return [1 - (1 - begin) * left ** (step / self.steps) for step in range(1, self.steps)] + [self.ratio]

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return the ticket, trained."""
        from kdtool.pruning import numbered
        from kdtool.training import sparsity

        first = self._early(run, network)
        trained = network
        for step, ratio in enumerate(self.sparsities(sparsity(network.module)), start=1):
            ticket = self.mask(run, trained, ratio, onto=first)
            trained = self.retrain(run, ticket, teacher, name=numbered("round", step, self.steps))
        return trained

    def _early(self, run: Run, network: Network) -> Network:
        """Return the network with its early weights."""
        import copy

        from kdtool import Network

        if run.training.epochs == 0:
            raise UsageError("lottery: its rounds are trainings; give --epochs of 1 or more")
        early = run.parent.early if run.parent else None
        if early is None or early.weights.keys() != network.module.state_dict().keys():
            raise Error(
                f"lottery: {(run.parent and run.parent.path) or 'the network'} keeps no early weights to go back to; "
                "train it with kdtool teacher --keep-init, or --keep-epoch 1"
            )
        module = copy.deepcopy(network.module)
        module.load_state_dict(early.weights)
        return Network(network.architecture, module)
