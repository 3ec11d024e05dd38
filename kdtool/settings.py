"""What a training and a data set are told by options; no torch here, so that help and completion are quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdtool.errors import UsageError, nearest
from kdtool.methods import Refiner
from kdtool.options import Options, nested, option
from kdtool.search import Search


class DataOptions(Options):
    """Say which data set, and how much of it."""

    data: str | None = option(None, help="data set: digits, mnist, cifar10, folder:PATH, ...")
    data_dir: Path | None = option(None, help="where data sets live (or set KDTOOL_DATA)")
    subset: float = option(1.0, above=0, maximum=1, help="fraction of the train split to use, per class, seeded")
    validation: float = option(
        0.1, above=0, below=1, help="fraction of train kept for validation, where there is no such split"
    )
    split_seed: int = option(0, minimum=0, help="seed of the splits, the subset and the augmentation")
    augment: str = option("standard", choices=("none", "standard"), help="augmentation of the training images")
    mean: tuple[float, ...] | None = option(
        None, minimum=0, maximum=1, help="normalise with this mean, one number a channel, for images in 0..1"
    )
    std: tuple[float, ...] | None = option(None, above=0, help="normalise with this standard deviation")
    unlabelled: str | None = option(
        None, help="more images to be taught on, without labels: folder:PATH, or another data set"
    )
    download: bool = option(False, help="download the data set where it is missing")


class Training(Options):
    """Say how a network is trained."""

    epochs: int = option(20, minimum=0, help="passes over the train split, for each phase")
    lr: float = option(1e-3, above=0, help="learning rate at its highest")
    batch_size: int = option(64, minimum=1, help="images per step")
    optimizer: str = option("adam", choices=("adam", "adamw", "sgd"), help="optimiser")
    schedule: str = option(
        "cosine",
        choices=("constant", "cosine", "multi-step", "one-cycle"),
        help="how the learning rate goes over the steps of a phase",
    )
    milestones: tuple[float, ...] = option(
        (0.5, 0.75), above=0, below=1, help="where multi-step divides the rate by 10, as fractions"
    )
    momentum: float = option(0.9, minimum=0, below=1, help="Nesterov momentum of sgd")
    weight_decay: float = option(0.0, minimum=0, help="weight decay (decoupled in adamw)")
    clip: float | None = option(None, above=0, help="largest norm of the gradient; unset: no clipping")
    label_smoothing: float = option(0.0, minimum=0, below=1, help="label smoothing of the cross-entropy")
    patience: int | None = option(None, minimum=1, help="stop after so many epochs without a better validation")
    views: int = option(
        8, minimum=0, help="seeded augmentations per image that a teacher sees once; 0: a new one each epoch"
    )
    cache: str = option(
        "on", choices=("on", "off"), help="keep what frozen networks make of each image in the run's directory"
    )
    cache_limit: float = option(8.0, minimum=0, help="disk that this may take, in GB; past it they run in every step")
    seed: int = option(0, minimum=0, help="seed of weights, order and dropout")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1, mps")
    precision: str = option(
        "auto", choices=("auto", "fp32", "bf16", "fp16"), help="auto: bf16 where the hardware has it and it pays"
    )


class SearchOptions(Options):
    """Say which of the method's options are chosen by validation."""

    search: Search | None = option(
        None, help="values to choose from in short trainings, by validation: temperature=1,2,4,8"
    )


class NetworkOptions(Options):
    """Say what a network is built for; what is unset comes from the data, else from the network itself."""

    classes: int | None = option(None, minimum=1, help="number of classes")
    in_channels: int | None = option(None, minimum=1, help="channels of an image")
    image_size: int | None = option(None, minimum=1, help="height and width of an image, in pixels")
    stem: str | None = option(
        None, choices=("default", "small"), help="small: a 3x3 stride-1 stem without pool, for small images"
    )


class EarlyOptions(Options):
    """Say which early weights a teacher's checkpoint keeps beside those it is left with."""

    keep_init: bool = option(False, help="keep the weights before the training too, as prune --method lottery needs")
    keep_epoch: int | None = option(None, minimum=1, help="keep the weights after this epoch instead")

    def __post_init__(self) -> None:
        """Check that the two go together."""
        super().__post_init__()
        if self.keep_init and self.keep_epoch is not None:
            raise UsageError("--keep-init and --keep-epoch are two ways to say which early weights to keep; give one")


class StudentOptions(Options):
    """Say who the student is, for methods that do not make their own."""

    student: str | None = option(None, help="student: SOURCE:NAME, or a checkpoint to go on from")
    refiner: Refiner | None = nested("refiners", help="make the student from the teacher with this refiner")


def split(given: dict[str, Any], *groups: type[Options]) -> list[dict[str, Any]]:
    """Return ``given`` sorted into the options of each group, the first that knows a name.

    Raises:
        UsageError: no group knows an option.
    """
    known = [[info.name for info in group.describe()] for group in groups]
    sorted_out: list[dict[str, Any]] = [{} for _ in groups]
    for name, value in given.items():
        for names, options in zip(known, sorted_out, strict=True):
            if name in names:
                options[name] = value
                break
        else:
            everything = [name for names in known for name in names]
            raise UsageError(f"there is no option {name!r}{nearest(name, everything)}")
    return sorted_out
