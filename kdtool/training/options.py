"""The options of a training. Nothing here imports torch, so that help and completion are fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from kdtool.data.options import DataOptions
from kdtool.errors import UsageError
from kdtool.plugins.options import Options, option
from kdtool.training.recipes.reading import Recipe


@dataclass(frozen=True)
class Clip:
    """A largest norm of the gradient."""

    norm: float | None
    """None: it is found while the training runs; infinite: nothing is clipped, whatever a recipe says."""

    @classmethod
    def parse(cls, text: str) -> Clip:
        """Return the value that a text stands for: ``auto``, ``off``, or a number above 0.

        Raises:
            UsageError: the text is neither.
        """
        if text in ("auto", "off"):
            return cls(None if text == "auto" else math.inf)
        try:
            norm = float(text)
        except ValueError as error:
            raise UsageError(f"{text!r} is not auto, off or a number") from error
        if not 0 < norm < math.inf:
            raise UsageError(f"{text} is out of range (0 < x)")
        return cls(norm)

    def __str__(self) -> str:
        if self.norm is None or self.norm == math.inf:
            return "auto" if self.norm is None else "off"
        return f"{self.norm:g}"


# Per step, where nothing else is said.
IMAGES = 64


class BatchSize(int):
    """A number of images per step, and whether they are taken in as many passes as the memory asks for."""

    auto: bool
    chosen: bool
    """Whether the number was given, by the user or by a recipe."""

    def __new__(cls, images: int = IMAGES, *, auto: bool = False, chosen: bool = True) -> Self:
        """Return a batch of ``images``."""
        batch = super().__new__(cls, images)
        batch.auto, batch.chosen = auto, chosen
        return batch

    @classmethod
    def parse(cls, text: str) -> BatchSize:
        """Return the value that a text stands for: a number, ``auto``, or ``auto:NUMBER``.

        Raises:
            UsageError: the text is none of these.
        """
        if text == "auto":
            return cls(auto=True, chosen=False)
        number = text.removeprefix("auto:")
        try:
            return cls(int(number), auto=number != text)
        except ValueError as error:
            raise UsageError(f"expected a whole number or auto, got {text!r}{_whole(number)}") from error

    def __str__(self) -> str:
        if not self.auto:
            return f"{int(self)}"
        return f"auto:{int(self)}" if self.chosen else "auto"


def _whole(text: str) -> str:
    """Return what to write for an integer such as 1e3 or 3.0."""
    try:
        return f"; write {int(float(text))}" if float(text) == int(float(text)) else ""
    except (ValueError, OverflowError):
        return ""


# Options that came after runs and checkpoints were written without them.
LATER = ("accumulate", "checkpoint_activations", "compile", "cuda_graphs", "images_on", "sync_batchnorm")

# Without --views every view recurs about four times: the teacher runs in a quarter of the epochs.
EPOCHS_FOR_A_VIEW, VIEWS = 4, (2, 8)


class Training(Options):
    """Options of a training."""

    recipe: Recipe | None = option(
        None,
        help="take the defaults of these options from a recipe: its NAME (below) or FILE.toml; unset: for fresh "
        "weights quick or standard, by the number of steps, and none for weights that go on",
    )
    epochs: int = option(20, minimum=0, help="passes over the train split, for each phase")
    lr: float = option(1e-3, above=0, help="highest learning rate")
    batch_size: BatchSize = option(
        BatchSize(IMAGES),
        minimum=1,
        help="images per step, of all processes and passes together; auto: those of the recipe, in as many passes as "
        "the memory of the GPU asks for (auto:256: 256 images)",
    )
    accumulate: int = option(1, minimum=1, help="passes in which a step takes its batch, for less memory")
    optimizer: str = option("adam", choices=("adam", "adamw", "muon", "sgd"), help="optimiser")
    schedule: str = option(
        "cosine",
        choices=("constant", "cosine", "multi-step", "one-cycle"),
        help="course of the learning rate over the steps of a phase; one-cycle also moves the momentum of sgd from "
        "0.95 to 0.85 and back, whatever --momentum says, and beta1 of adam, adamw and muon",
    )
    milestones: tuple[float, ...] = option(
        (0.5, 0.75),
        above=0,
        below=1,
        help="points at which multi-step divides the rate by 10, as fractions of the phase",
    )
    warmup: float | None = option(
        None, minimum=0, help="epochs in which the rate rises to --lr; unset: 0, or 0.3 of the phase with one-cycle"
    )
    momentum: float = option(
        0.9, minimum=0, below=1, help="Nesterov momentum of sgd and muon; with one-cycle, of muon only"
    )
    weight_decay: float = option(0.0, minimum=0, help="weight decay (decoupled in adamw and muon)")
    norm_decay: bool = option(True, help="weight decay on the scales of norms and on biases too")
    layer_decay: float = option(
        1.0, above=0, maximum=1, help="factor of the rate from each layer to the one before it, for transformers"
    )
    clip: Clip | None = option(
        None, help="largest norm of the gradient: a number, auto or off; unset: that of the recipe, or off"
    )
    ema: float | None = option(
        None,
        above=0,
        below=1,
        help="average the weights with this decay in each step, and keep the average where it validates better",
    )
    mixup: float = option(0.0, minimum=0, help="alpha of mixup, 0.2 to 1; the teacher sees the mixed images too")
    cutmix: float = option(0.0, minimum=0, help="alpha of CutMix; with mixup, each step takes one of them")
    drop_path: float = option(
        0.0, minimum=0, below=1, help="drop residual branches with up to this probability (stochastic depth)"
    )
    label_smoothing: float = option(0.0, minimum=0, below=1, help="label smoothing of the cross-entropy")
    class_weights: str = option(
        "none",
        choices=("none", "balanced"),
        help="weights of the classes in the labels' cross-entropy; balanced: inverse to their numbers of images",
    )
    sampling: str = option(
        "each",
        choices=("each", "balanced"),
        help="images of an epoch; balanced: as many, drawn so that all classes are equally likely, without cache",
    )
    select: str = option(
        "accuracy",
        choices=("accuracy", "balanced-accuracy"),
        help="accuracy on validation that chooses the epoch, the setting of --search, and one of several models",
    )
    patience: int | None = option(None, minimum=1, help="stop after this many epochs without a better validation")
    views: int | None = option(
        None,
        minimum=0,
        help="seeded augmentations of an image, which recur in turn; 0: a new one in each epoch, without cache; unset: "
        "one for every 4 epochs, 2 to 8, where a teacher looks, else 0",
    )
    cache: str = option(
        "auto",
        choices=("auto", "on", "off"),
        help="keep the outputs of frozen networks on each image in the run's directory; auto: where images recur",
    )
    cache_limit: float = option(
        8.0, minimum=0, help="GB of disk that cached outputs may take; beyond it, frozen networks run in every step"
    )
    seed: int = option(0, minimum=0, maximum=2**63 - 1, help="seed of weights, order and dropout")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, mps")
    images_on: str = option(
        "auto",
        choices=("auto", "device", "host"),
        help="where images are kept and augmented; auto: on a CUDA device if they fit; results do not change",
    )
    compile: bool = option(
        False, help="compile the student with torch.compile; where that fails, a line says so and it trains without"
    )
    cuda_graphs: str = option(
        "off",
        choices=("auto", "on", "off"),
        help="launch the kernels of a step on a CUDA device all at once, for small networks; auto: where network and "
        "loss are from torch, timm or kdtool",
    )
    checkpoint_activations: bool = option(
        False, help="compute activations again in the backward pass instead of keeping them, for less memory"
    )
    sync_batchnorm: bool = option(
        False, help="batch-norm over the images of all processes, on GPUs; off: over those of each process"
    )
    threads: int | None = option(
        None,
        minimum=1,
        help="threads on the CPU; unset: OMP_NUM_THREADS, else the fastest number, found by timing the first steps",
    )
    precision: str = option(
        "auto",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="auto: bf16 where the hardware supports it and it is faster",
    )

    @property
    def recurring_views(self) -> int:
        """The number of views of an image that recur where a frozen network looks; 0 if every epoch has a new one."""
        if self.views is not None:
            return self.views
        fewest, most = VIEWS
        return min(most, max(fewest, self.epochs // EPOCHS_FOR_A_VIEW))

    @property
    def mixes(self) -> bool:
        """Whether the images of a batch are mixed with each other."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def mixture(self) -> tuple[str, str]:
        """The option that mixes the images, as an error names it, and how to do without it."""
        name = "mixup" if self.mixup else "cutmix"
        if self.recipe is not None and self.recipe.training.get(name) == getattr(self, name):
            return f"--{name} of recipe {self.recipe}", f"add --{name} 0"
        return f"--{name}", "leave it out"

    def _why_none_recurs(self) -> str:
        """Return why no view of an image recurs, whatever the data; empty if one may."""
        if self.mixes:
            return f"with {self.mixture[0]} every step has new images"
        return "with --sampling balanced an epoch has not every image" if self.sampling == "balanced" else ""

    def as_data(self) -> dict[str, Any]:
        """Return the options as plain data; those that earlier releases did not have only where they are set.

        So a run of an earlier release is recognised.
        """
        unset = {info.name: info.default for info in self.describe() if info.name in LATER}
        batch = self.batch_size
        values = {**super().as_data(), "batch_size": str(batch) if batch.auto else int(batch)}
        return {name: value for name, value in values.items() if name not in unset or value != unset[name]}

    def __post_init__(self) -> None:
        """Check that the options go together."""
        super().__post_init__()
        if self.recipe is not None:
            object.__setattr__(self, "recipe", self.recipe.checked(self.describe(), DataOptions.describe()))
        if self.cache == "on" and (why := self._why_none_recurs()):
            raise UsageError(f"--cache on: {why}, so that no output can be read back; leave --cache on out")


class TimeOptions(Options):
    """Options of the time that a training takes."""

    hours: float | None = option(
        None, above=0, help="hours to train, in place of --epochs; a few timed steps say how many epochs fit"
    )


class InitialOptions(Options):
    """Options of the weights with which a training begins."""

    whiten: bool = option(
        False, help="fix the first convolution to filters that whiten the training images, for short trainings"
    )


class EarlyOptions(Options):
    """Options that keep early weights of a teacher in its checkpoint, beside the final ones."""

    keep_init: bool = option(False, help="keep the initial weights too, which prune --method lottery needs")
    keep_epoch: int | None = option(
        None, minimum=1, help="keep the weights after this epoch, in place of the initial ones"
    )

    def __post_init__(self) -> None:
        """Check that only one of the two was given."""
        super().__post_init__()
        if self.keep_init and self.keep_epoch is not None:
            raise UsageError("--keep-init and --keep-epoch exclude each other; give one of them")

    @property
    def epoch(self) -> int | None:
        """The number of epochs after which weights are kept: 0 for the initial ones, None for no early weights."""
        return 0 if self.keep_init else self.keep_epoch
