"""Options of the data set: its name, its splits, its augmentation."""

from __future__ import annotations

from pathlib import Path

from kdtool.data.preparation import INTERPOLATION
from kdtool.plugins.options import Options, option

AUGMENT = ("none", "standard", "trivial", "rand")

SPLITTING = ("subset", "validation", "split_seed", "augment", "erase")
"""The options that a description of a data set holds as they are."""


class DataOptions(Options):
    """Choose a data set, and how much of it to use."""

    data: str | None = option(None, help="data set: digits, mnist, cifar10, folder:PATH, ...")
    data_dir: Path | None = option(None, help="where data sets live (or set KDTOOL_DATA)")
    subset: float = option(1.0, above=0, maximum=1, help="fraction of the train split to use, per class, seeded")
    validation: float = option(
        0.1, above=0, below=1, help="fraction of train kept for validation, where there is no such split"
    )
    split_seed: int = option(
        0, minimum=0, maximum=2**63 - 1, help="seed of the splits, the subset and the augmentation"
    )
    augment: str = option(
        "standard",
        choices=AUGMENT,
        help="augmentation of the training images: crops and mirrors, followed by TrivialAugment or RandAugment",
    )
    erase: float = option(0.0, minimum=0, maximum=1, help="probability that a part of a training image is erased")
    mean: tuple[float, ...] | None = option(
        None, minimum=0, maximum=1, help="normalise with this mean, one number a channel, for images in 0..1"
    )
    std: tuple[float, ...] | None = option(None, above=0, help="normalise with this standard deviation")
    crop: float | None = option(
        None, above=0, maximum=1, help="centre square to use of an image file, as a fraction of its shorter side"
    )
    interpolation: str | None = option(None, choices=INTERPOLATION, help="filter that resizes images")
    unlabelled: str | None = option(
        None, help="more images to learn from, without labels: folder:PATH, or another data set"
    )
    download: bool = option(False, help="download the data set where it is missing")
