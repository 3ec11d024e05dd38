"""The contract of a pruner, and the two kinds that share their options and steps: by masks and by channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.distillation.distiller import LossDistiller
from kdtool.errors import Error, UsageError
from kdtool.exporting.exporter import Exporter
from kdtool.plugins.defaults import RETRAINING_LOSS
from kdtool.plugins.method import Method
from kdtool.plugins.method_code import MethodError, misreturned, not_overridden, returned
from kdtool.plugins.options import option
from kdtool.plugins.registry import nested
from kdtool.surgery.layer_options import LayerOptions
from kdtool.surgery.repair.options import RepairOptions

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool.models.architecture import Network
    from kdtool.surgery.channels.groups import Scores
    from kdtool.surgery.channels.remove import Removal
    from kdtool.training.callback import Callback
    from kdtool.training.run import Run

STEPS = "number of steps, each with its own retraining; the first ones remove most"

CHANNEL_SCOPE = "compare each channel with all others, those of its layer, or those of layers with the same structure"

FLOOR = "fraction of its channels that every layer keeps at least, so that no layer becomes a bottleneck"


class Pruner(Method):
    """Remove weights that a trained network does not need, and retrain the rest."""

    kind: ClassVar[str] = "pruners"
    needs_early: ClassVar[bool] = False
    """Whether it goes back to the early weights of the given checkpoint, which no network made from it has."""

    teacher: bool = option(True, help="retrain with the unpruned model as teacher; off: with only the labels")
    objective: LossDistiller = nested("distillers", RETRAINING_LOSS, help="loss of the retraining with a teacher")

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return the pruned network; ``network`` itself is not changed."""
        raise not_overridden(self, "prune")

    @classmethod
    def ladders(cls, network: Network) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Return how this method can be sized to a cost, as `Refiner.ladders` does; by default it cannot be.

        A pruner that leaves zeros has no ladders, since they do not make a network faster.
        """
        return []

    @classmethod
    def cutter(cls, run: Run, network: Network) -> Callable[[Mapping[str, Any]], Network]:
        """Return a function from options to the pruned network without any training, for the search of a size.

        Override it if something can be computed once for all sizes.
        """
        untrained = run.with_training(epochs=0)
        return lambda options: cls(**options).prune(untrained, network, None)

    def retrain(
        self,
        run: Run,
        pruned: Network,
        teacher: Network | None,
        name: str = "retrain",
        callbacks: Sequence[Callback] = (),
    ) -> Network:
        """Retrain the pruned network in the phase ``name``, with callbacks that take part in it, and return it.

        The teacher is used only if the option ``teacher`` is set. With 0 epochs the network is returned unchanged.
        """
        if run.training.epochs == 0:
            return pruned
        taught_by = teacher if self.teacher else None
        objective = self.objective if taught_by is not None else None
        return run.fit(name, pruned, teacher=taught_by, objective=objective, callbacks=callbacks).network


class MaskPruner(LayerOptions, Pruner):
    """Set the weights with the lowest scores to zero and keep them there; the network keeps its shape.

    Override `scores`. Only the weights of `kdtool.training.prunable` are removed, no biases and norms; those that are
    already zero count as removed. Layers that compute the weights that they use, such as standardised convolutions,
    stay as they are and are named. With ``only`` or ``skip``, the ratio is of the weights of the chosen layers, and the
    others keep theirs; a retraining trains all layers.
    """

    ratio: float = option(0.8, above=0, below=1, help="fraction of the weights to remove")
    scope: str = option(
        "global", choices=("global", "layer"), help="compare each weight with all others, or with those of its layer"
    )
    steps: int = option(1, minimum=1, help=STEPS)

    def scores(self, run: Run, network: Network) -> Mapping[str, Tensor]:
        """Return the scores of all weights that may be removed, by the name of the weight tensor and in its shape.

        The names are those of `kdtool.training.prunable`. The lowest scores are removed first; weights without a score
        stay, and count.
        """
        raise not_overridden(self, "scores")

    def sparsities(self, begin: float) -> list[float]:
        """Return the fraction of zero weights after each step; ``begin`` is the fraction before the first one."""
        from kdtool.pruning.masks import cubic

        return cubic(min(begin, self.ratio), self.ratio, self.steps)

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a pruned and retrained copy."""
        for step, ratio in enumerate(self.sparsities(self.sparsity(network)), start=1):
            network = self.mask(run, network, ratio)
            network = self.retrain(run, network, teacher, name=numbered("retrain", step, self.steps))
        return network

    def sparsity(self, network: Network) -> float:
        """Return the fraction (0..1) of the weights of the chosen layers that is zero."""
        from kdtool.training.zeros import sparsity

        return sparsity(network.module, self.layers(network))

    def layers(self, network: Network) -> set[str]:
        """Return the paths of the layers that may get zeros, and say which others stay as they are.

        Raises:
            UsageError: a pattern of ``only`` or ``skip`` matches no layer.
            Error: no layer is left to prune.
        """
        from kdtool.pruning.layers import layers_to_mask

        return layers_to_mask(self, network)

    def mask(self, run: Run, network: Network, ratio: float, onto: Network | None = None) -> Network:
        """Return a copy of ``onto`` in which a fraction ``ratio`` of the weights is zero: those with the lowest scores.

        The scores are those of ``network``; by default ``onto`` is ``network`` itself.

        Raises:
            Error: scores have another shape, are NaN or of weights that cannot be removed, or too few weights have any.
        """
        from kdtool.pruning.masks import apply_masks, dense_layers, masking

        layers = self.layers(network)
        dense = dense_layers(network, self.ratio, layers)
        found = returned(self, self.scores(run, network), Mapping, "scores by name")
        chosen = masking(self, network, found, ratio, layers=layers, dense=dense, asked=self.ratio, scope=self.scope)
        run.record(reached=chosen.as_data(self.ratio))
        run.keep_zeros()
        return apply_masks(onto or network, chosen.masks)


class ChannelPruner(LayerOptions, RepairOptions, Pruner):
    """Remove the channels with the lowest importance from the network, which becomes smaller, as do its files.

    Override `importance`. Channels that depend on each other by the structure of the network are removed together. With
    ``only`` or ``skip``, the other layers keep all their output channels, and so do layers whose channels go with
    theirs; a layer behind a pruned one reads fewer. The ratio is of the size of the whole network. A layer whose output
    is concatenated before something is added to it keeps its part of ``floor``, but no multiple of ``round_to``, which
    the whole keeps.
    """

    relative_scores: ClassVar[bool] = False
    """Whether `importance` is relative to the mean of its group.

    If it is, each step continues with the means of the channels that the step before left, so that scores of different
    steps can be compared.
    """

    ratio: float = option(0.3, above=0, below=1, help="fraction of the size to remove")
    of: str = option("params", choices=("params", "macs", "channels", "latency"), help="size that the ratio refers to")
    scope: str = option("global", choices=("global", "layer", "isomorphic"), help=CHANNEL_SCOPE)
    round_to: int = option(16, minimum=1, help="layers keep multiples of this many channels; 16 suits onnxruntime")
    floor: float = option(0.1, minimum=0, below=1, help=FLOOR)
    steps: int = option(1, minimum=1, help=STEPS)
    exporter: Exporter | None = nested("exporters", help="exporter that says how --of latency measures, and on what")

    def __post_init__(self) -> None:
        """Check that the options go together."""
        super().__post_init__()
        if self.exporter is not None and self.of != "latency":
            raise UsageError("--exporter: says how a latency is measured; add --of latency, or leave it out")

    def importance(self, run: Run, network: Network) -> Scores:
        """Return a function from a ``torch_pruning.dependency.Group`` to the scores of its channels.

        The function returns a tensor [channels], or None if the channels of the group must stay. The lowest scores are
        removed first.
        """
        raise not_overridden(self, "importance")

    @classmethod
    def ladders(cls, network: Network) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Return fractions of the MACs to remove, in steps of a 64th."""
        from kdtool.pruning.sizing import round_to

        common = {"of": "macs", "round_to": round_to(network)}
        return [[{**common, "ratio": step / 64} for step in range(1, 63)]]

    @classmethod
    def cutter(cls, run: Run, network: Network) -> Callable[[Mapping[str, Any]], Network]:
        """Return a function from options to the network without its least important channels.

        The importance is computed once for all fractions.
        """
        from kdtool.pruning.sizing import cutter

        return cutter(cls, run, network)

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return a smaller, retrained copy.

        Raises:
            UsageError: there are no images for the repair.
            Error: no step can remove any channel.
        """
        from kdtool.pruning.masks import cubic
        from kdtool.surgery.channels.remove import NEAR

        if self.exporter is not None:
            from kdtool.exporting.exporter import check_measurable

            check_measurable(self.exporter)
        data = run.data if self.repairs else None
        removed, failed = 0.0, None
        reached: dict[str, Any] = {}
        removal: Removal | None = None
        for step, target in enumerate(cubic(0, self.ratio, self.steps), start=1):
            if removed < target:  # else an earlier step removed so much, since whole multiples of ``round_to`` go
                try:
                    removal = self._removal(run, network, (target - removed) / (1 - removed), removal)
                except MethodError:
                    raise
                except Error as error:
                    failed = error  # this step may remove less than ``round_to`` channels; the next one removes more
                    if not removed or target - removed > NEAR:
                        continue
                    failed = None  # it is as near as whole multiples come
                else:
                    seed, record = run.training.seed, run.entry.record_repair
                    network = self.repaired(removal.network, network, data, seed, record)
                    removed, failed = 1 - (1 - removed) * (1 - removal.removed), None
                    reached = {**removal.as_data(), "asked": self.ratio, "removed": round(removed, 4)}
                    run.record(reached=reached)
            network = self.retrain(run, network, teacher, name=numbered("retrain", step, self.steps))
        if failed is not None:
            if not removed:
                raise failed
            run.record(reached={**reached, "capped": str(failed)})
        return network

    def _removal(self, run: Run, network: Network, ratio: float, last: Removal | None) -> Removal:
        """Return the network without the fraction ``ratio`` of its size; ``last`` is what the step before removed."""
        from kdtool.pruning.latency import remove_latency
        from kdtool.pruning.layers import limited
        from kdtool.surgery.channels.importance import carried
        from kdtool.surgery.channels.remove import remove_channels

        importance = self.importance(run, network)
        if not callable(importance):
            raise misreturned(self, f"{type(importance).__name__}, not a function of a group")
        means = last.means if last and self.relative_scores else {}
        options: dict[str, Any] = {
            "importance": limited(self, carried(importance, means), network),
            "scope": self.scope,
            "round_to": self.round_to,
            "floor": self.floor,
            "before": last and last.before,
        }
        if self.of == "latency":
            return remove_latency(network, ratio=ratio, exporter=self.exporter, **options)
        return remove_channels(network, ratio=ratio, of=self.of, **options)


def numbered(name: str, step: int, steps: int) -> str:
    """Return the name of phase ``step`` of ``steps``; a single phase has no number."""
    return name if steps == 1 else f"{name} {step} of {steps}"
