"""The Lottery Ticket Hypothesis (Frankle and Carbin, 2019, arXiv:1803.03635).

Rewinding to an early epoch instead of the initial weights: Frankle, Dziugaite, Roy and Carbin, Linear Mode Connectivity
and the Lottery Ticket Hypothesis, 2020, arXiv:1912.05671.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from kdtool import Error, MaskPruner, UsageError, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run


class Lottery(MaskPruner):
    """Set the smallest weights to zero in several rounds, each of which trains the others from their early values.

    In each of n rounds the weights with the smallest trained |w| become zero, so that the fraction
    1 - (1 - ratio)^(k/n) is zero after round k: every round removes the same fraction of the remaining weights. The
    remaining ones are reset to the early weights that the checkpoint keeps (``kdtool teacher --keep-init`` or
    ``--keep-epoch``), and trained for ``--epochs``.
    """

    also_called: ClassVar[tuple[str, ...]] = ("lth", "lottery-ticket", "imp")
    needs_early: ClassVar[bool] = True

    steps: int = option(3, minimum=1, help="number of rounds, each of which trains from the early weights")
    teacher: bool = option(False, help="train with the unpruned model as teacher; off: with only the labels")

    def scores(self, run: Run, network: Network) -> Mapping[str, Tensor]:
        """Return |w| by the name of the weight tensor."""
        from kdtool.training import prunable

        return {name: weight.abs() for name, weight in prunable(network.module).items()}

    def sparsities(self, begin: float) -> list[float]:
        """Return 1 - (1 - b) * ((1 - ratio) / (1 - b))^(k/n) for each round k; the fraction b is already zero."""
        begin = min(begin, self.ratio)
        left = (1 - self.ratio) / (1 - begin)
        return [1 - (1 - begin) * left ** (step / self.steps) for step in range(1, self.steps)] + [self.ratio]

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return the trained ticket of the last round."""
        from kdtool.pruning import numbered

        early = self._early(run, network)
        trained = network
        for step, ratio in enumerate(self.sparsities(self.sparsity(network)), start=1):
            ticket = self.mask(run, trained, ratio, onto=early)
            trained = self.retrain(run, ticket, teacher, name=numbered("round", step, self.steps))
        return trained

    def _early(self, run: Run, network: Network) -> Network:
        """Return the network with its early weights."""
        import copy

        from kdtool import Network

        if run.training.epochs == 0:
            raise UsageError("lottery: every round is a training; give --epochs 1 or more")
        early = run.parent.early if run.parent else None
        if early is None or shapes(early.weights) != shapes(network.module.state_dict()):
            raise Error(
                f"lottery: {(run.parent and run.parent.path) or 'the network'} keeps no early weights to reset to; "
                "train it with kdtool teacher --keep-init, or --keep-epoch 1"
            )
        module = copy.deepcopy(network.module)
        module.load_state_dict(early.weights)
        return Network(network.architecture, module)


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of weights by name."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
