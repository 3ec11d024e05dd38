"""What pruners share: their options, masks that hold or channels that go, in one step or in several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.distillation.distiller import LossDistiller
from kdtool.errors import Error
from kdtool.plugins.method import Method
from kdtool.plugins.options import option
from kdtool.plugins.registry import nested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kdtool.models.architecture import Network
    from kdtool.surgery.channels.groups import Scores
    from kdtool.surgery.channels.remove import Removal
    from kdtool.training.run import Run

STEPS = "remove it in so many steps, much at first and little at last, each with its retraining"


class Pruner(Method):
    """Remove what is left over in a trained network, and retrain the rest."""

    kind: ClassVar[str] = "pruners"

    teacher: bool = option(True, help="retrain with the unpruned model as teacher, or with the labels alone")
    objective: LossDistiller = nested("distillers", "kd", help="loss of the retraining with a teacher")

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return the pruned network; the given one is left as it is."""
        raise NotImplementedError

    def retrain(
        self,
        run: Run,
        pruned: Network,
        teacher: Network | None,
        name: str = "retrain",
    ) -> Network:
        """Retrain the pruned network as the options say, in the phase ``name``, and return it.

        With 0 epochs it is returned unchanged.
        """
        if run.training.epochs == 0:
            return pruned
        taught_by = teacher if self.teacher else None
        objective = self.objective if taught_by is not None else None
        return run.fit(name, pruned, teacher=taught_by, objective=objective).network


class MaskPruner(Pruner):
    """Set the weights with the least scores to zero, where they stay; the network keeps its shape.

    Override `scores`. Weights of convolutions and linear layers can go; those that are zero already count as gone.
    """

    ratio: float = option(0.8, above=0, below=1, help="fraction of the weights to remove")
    scope: str = option(
        "global", choices=("global", "layer"), help="what weights are compared with: all, or those of their layer"
    )
    steps: int = option(1, minimum=1, help=STEPS)

    def scores(self, run: Run, network: Network) -> Mapping[str, Tensor]:
        """Return the score of every weight that may go, by the weight's name and in its shape; the least go first."""
        raise NotImplementedError

    def sparsities(self, begin: float) -> list[float]:
        """Return which part of the weights is gone after each step, where the part ``begin`` is zero already."""
        from kdtool.pruning.masks import cubic

        return cubic(min(begin, self.ratio), self.ratio, self.steps)

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a pruned and retrained copy."""
        from kdtool.training.zeros import sparsity

        for step, ratio in enumerate(self.sparsities(sparsity(network.module)), start=1):
            network = self.mask(run, network, ratio)
            network = self.retrain(run, network, teacher, name=numbered("retrain", step, self.steps))
        return network

    def mask(self, run: Run, network: Network, ratio: float, onto: Network | None = None) -> Network:
        """Return a copy of ``onto`` (None: the network itself) without the weights of the network that score least."""
        from kdtool.pruning.masks import Masking, apply_masks, lowest_scores
        from kdtool.training.zeros import prunable

        # Below all that a score can be.
        zeros = {name: weight == 0 for name, weight in prunable(network.module).items()}
        scores = {
            name: score.masked_fill(zeros[name], -float("inf")) for name, score in self.scores(run, network).items()
        }
        chosen = lowest_scores(scores, ratio, self.scope)
        masks = {name: mask & ~zeros[name] for name, mask in chosen.masks.items()}
        run.record(reached=Masking(masks, chosen.capped).as_data(self.ratio))
        run.keep_zeros()
        return apply_masks(onto or network, masks)


class ChannelPruner(Pruner):
    """Remove the channels with the least importance for good; the network and its files become smaller.

    Override `importance`. What goes together by the network's structure goes together.
    """

    relative_scores: ClassVar[bool] = False
    """Whether `importance` is relative to the mean of its group, so that in several steps it has to be carried on."""

    ratio: float = option(0.3, above=0, below=1, help="fraction of the size to remove")
    of: str = option("params", choices=("params", "macs", "channels", "latency"), help="the size that the ratio is of")
    scope: str = option(
        "global", choices=("global", "layer"), help="what channels are compared with: all, or those of their layer"
    )
    round_to: int = option(
        16, minimum=1, help="layers keep multiples of this many channels; 16 is what onnxruntime likes"
    )
    steps: int = option(1, minimum=1, help=STEPS)

    def importance(self, run: Run, network: Network) -> Scores:
        """Return what gives each channel of a ``torch_pruning.dependency.Group`` its score: a tensor [channels], or
        None where they have to stay."""
        raise NotImplementedError

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a smaller, retrained copy."""
        from kdtool.pruning.masks import cubic

        gone, failed = 0.0, None
        reached: dict[str, Any] = {}
        means: Mapping[str, float] = {}
        for step, target in enumerate(cubic(0, self.ratio, self.steps), start=1):
            try:
                removal = self._removal(run, network, (target - gone) / (1 - gone), means)
            except Error as error:
                failed = error  # a step may ask for less than any layer can give, and the next one asks for more
                continue
            network, gone, failed = removal.network, 1 - (1 - gone) * (1 - removal.removed), None
            means = removal.means if self.relative_scores else {}
            reached = {**removal.as_data(), "asked": self.ratio, "removed": round(gone, 4)}
            run.record(reached=reached)
            network = self.retrain(run, network, teacher, name=numbered("retrain", step, self.steps))
        if failed is not None:
            if not gone:
                raise failed
            run.record(reached={**reached, "capped": str(failed)})
        return network

    def _removal(self, run: Run, network: Network, ratio: float, means: Mapping[str, float]) -> Removal:
        from kdtool.pruning.latency import remove_latency
        from kdtool.surgery.channels.importance import carried
        from kdtool.surgery.channels.remove import remove_channels

        how: dict[str, Any] = {
            "importance": carried(self.importance(run, network), means),
            "scope": self.scope,
            "round_to": self.round_to,
        }
        if self.of == "latency":
            return remove_latency(network, ratio=ratio, **how)
        return remove_channels(network, ratio=ratio, of=self.of, **how)


def numbered(name: str, step: int, steps: int) -> str:
    """Return the name of one of several phases; the only one has no number."""
    return name if steps == 1 else f"{name} {step} of {steps}"
