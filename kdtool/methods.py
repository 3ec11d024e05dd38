"""The kinds of method that a plugin can bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.errors import UsageError
from kdtool.method import Method, make
from kdtool.options import nested, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool.adapters import Pair
    from kdtool.architecture import Network
    from kdtool.data import RawData
    from kdtool.run import Run
    from kdtool.step import Step

__all__ = ["Dataset", "Distiller", "Exporter", "Method", "Pruner", "Refiner", "Source", "make"]


class Source(Method):
    """Build networks by name."""

    kind: ClassVar[str] = "teachers"

    def networks(self) -> list[str]:
        """Return the names that `build` knows."""
        raise NotImplementedError

    def defaults(self, network: str) -> dict[str, Any]:
        """Return what ``network`` was made for: ``classes``, ``in_channels``, ``image_size`` (pixels),
        ``mean`` and ``std`` (tuples, one number a channel, for images in 0..1)."""
        raise NotImplementedError

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode, on the CPU, in float32; it maps [batch, in_channels,
        image_size, image_size] to [batch, classes] logits.

        Raises:
            kdtool.Error: the network cannot be had in that form; the message says why.
        """
        raise NotImplementedError


class Refiner(Method):
    """Make a smaller structure of a network."""

    kind: ClassVar[str] = "refiners"
    must_shrink: ClassVar[bool] = True
    """Whether a result that is no smaller is an error; not so where the user names the result."""

    init: str = option(
        "fresh",
        choices=("fresh", "inherit"),
        help="start from fresh weights, or from the kept part of the old ones",
    )

    def refine(self, network: Network) -> Network:
        """Return a smaller network; the given one is left as it is.

        Raises:
            kdtool.Error: this network cannot be made smaller this way; nothing was changed.
        """
        raise NotImplementedError


class Distiller(Method):
    """Teach a student.

    Override `loss` for one fit with that loss, or `distill` for a strategy of several fits.
    """

    kind: ClassVar[str] = "distillers"
    makes_student: ClassVar[bool] = False
    """Whether `distill` makes the student itself, so that none has to or can be given."""
    needs_student: ClassVar[bool] = True
    """Whether a student has to be given; where not, `distill` makes one of its own if there is none."""
    several_teachers: ClassVar[bool] = False
    """Whether it learns from two or more teachers, which `distill` finds in ``run.teachers``."""
    fits: ClassVar[str] = ""
    """One sentence for the help: when the method is the right one."""
    logits: ClassVar[bool] = True
    """Whether `loss` reads the teacher's logits; where it does not, they are not computed."""
    only_labels: ClassVar[bool] = False
    """Whether `loss` is the labels' cross-entropy and nothing else."""
    weight_option: ClassVar[str] = "weight"
    """The option that weighs the teacher's term, which ``NAME:NUMBER`` in a sum of losses sets."""
    validates: ClassVar[str] = "accuracy"
    """What chooses the best epoch: the ``accuracy`` on the validation split, or the ``loss`` itself there."""

    @classmethod
    def check_student(cls, *, named: bool, refined: bool) -> None:
        """Check that it is told who the student is, once, unless it makes its students itself.

        ``named`` says whether a student was given, ``refined`` whether a refiner was.

        Raises:
            UsageError: there is none, or one too many.
        """
        if cls.makes_student:
            if named:
                raise UsageError(f"--student: {cls.name} makes its students itself; choose how with --refiner")
        elif named and refined:
            raise UsageError("--student and --refiner are two ways to say who the student is; give one")
        elif not named and not refined and cls.needs_student:
            raise UsageError(
                f"--method {cls.name} needs a student: --student SOURCE:NAME, --student FILE or --refiner NAME"
            )

    @classmethod
    def check_teachers(cls, count: int) -> None:
        """Check that there are as many teachers as it learns from.

        Raises:
            UsageError: there are not.
        """
        if cls.several_teachers and count < 2:
            raise UsageError(f"--method {cls.name} learns from several teachers; name two checkpoints or more")
        if not cls.several_teachers and count > 1:
            raise UsageError(f"--method {cls.name} learns from one teacher, not {count}{_who_takes_several()}")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch, a scalar tensor."""
        raise UsageError(f"{self.name} is a strategy and has no loss; use it as --method")

    def needs_labels(self) -> bool:
        """Return whether `loss` has no meaning for images without a label."""
        return self.only_labels

    def check(self, student: Network, teacher: Network) -> None:
        """Check, before anything is trained, that `loss` has a meaning for these two networks.

        Raises:
            kdtool.Error: it has none; the message says why.
        """
        return

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the layers whose outputs `loss` is given in ``step.maps``; none, unless this is overridden.

        Raises:
            kdtool.Error: the networks have no such layers.
        """
        return ()

    def adapter(self, pair: Pair) -> nn.Module:
        """Return the layer, learnt with the student and thrown away, that the student's map goes through: by default
        one that gives it the shape of its teacher's."""
        from kdtool.adapters import adapter

        return adapter(pair)

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return the module, learnt with the student and thrown away, that makes of the list of the student's maps at
        all pairs the list that `loss` is given: by default one `adapter` for each."""
        from kdtool.adapters import Each

        return Each(self.adapter(pair) for pair in pairs)

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train and return the student."""
        self.check_student(named=student is not None, refined=False)
        assert student is not None
        return run.fit(self.name, student, teacher=teacher, objective=self).network


class Pruner(Method):
    """Remove what is left over in a trained network, and retrain the rest."""

    kind: ClassVar[str] = "pruners"

    teacher: bool = option(True, help="retrain with the unpruned model as teacher, or with the labels alone")
    objective: Distiller = nested("distillers", "kd", help="loss of the retraining with a teacher")

    def prune(self, run: Run, network: Network, teacher: Network | None) -> Network:
        """Return the pruned network; the given one is left as it is."""
        raise NotImplementedError

    def retrain(
        self,
        run: Run,
        pruned: Network,
        teacher: Network | None,
        constraint: Callable[[nn.Module], None] | None = None,
        name: str = "retrain",
    ) -> Network:
        """Train what is left as the options say, and return it; ``constraint`` is called with the module after every
        step, ``name`` is that of the phase. With 0 epochs it is returned as it is."""
        if run.training.epochs == 0:
            return pruned
        taught_by = teacher if self.teacher else None
        objective = self.objective if taught_by is not None else None
        return run.fit(name, pruned, teacher=taught_by, objective=objective, constraint=constraint).network


class Exporter(Method):
    """Write a network in another format and measure it."""

    kind: ClassVar[str] = "exporters"
    suffix: ClassVar[str] = ""
    """How the name of its file ends, such as ``.onnx``."""

    def export(
        self,
        network: Network,
        output: Path,
        *,
        metadata: Mapping[str, str],
        teacher: Network | None = None,
        test: Any = None,
    ) -> dict[str, Any]:
        """Write ``output`` and return what was measured, as plain data.

        ``metadata`` goes into the file; ``teacher`` is what the latency is compared with; ``test``
        is an iterable of (images, labels) batches of the test split.
        """
        raise NotImplementedError


class Dataset(Method):
    """Read a data set."""

    kind: ClassVar[str] = "datasets"

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the data set.

        ``argument`` is what stood behind the colon (``folder:PATH``); ``root`` is the value of
        ``--data-dir`` or ``KDTOOL_DATA``.

        Raises:
            kdtool.Error: the files are not there or hold no images; the message says what to do.
        """
        raise NotImplementedError

    def images(self, argument: str, root: Path | None) -> Tensor | tuple[Path, ...]:
        """Return images to learn from without labels, as a `kdtool.RawSplit` has them: by default those of the train
        split.

        Raises:
            kdtool.Error: there are none; the message says what to do.
        """
        return self.load(argument, root).train.images


def _who_takes_several() -> str:
    from kdtool.plugins import installed, load

    plugins = [plugin for plugin in installed() if plugin.kind == Distiller.kind and plugin.builtin]
    found = [plugin.name for plugin in plugins if load(plugin).several_teachers]
    return f"; from several learns --method {' or '.join(found)}" if found else ""
