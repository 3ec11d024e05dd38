"""Data sets as a network sees them: splits of normalised batches, the same whenever they are opened again."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdtool.data.dataset import Dataset
from kdtool.data.image_files import SMALL
from kdtool.data.images import Images, JoinedImages, fits_in_memory, images_of
from kdtool.data.options import DataOptions
from kdtool.data.pixels import check_channels, normalised, statistics, statistics_for
from kdtool.data.raw import UNLABELLED, RawData, RawSplit
from kdtool.data.spec import DataSpec
from kdtool.errors import Error, UsageError
from kdtool.plugins.registry import make
from kdtool.utils.seeds import derive

# The statistics of large images are those of so many of them, evenly spaced.
SAMPLE = 1000


class Split:
    """The train, val or test part of a data set."""

    def __init__(self, name: str, images: Images, labels: Tensor, spec: DataSpec) -> None:
        """Pair ``images`` with their class indices, int64 [images]."""
        self.name, self.labels, self.spec = name, labels, spec
        self._images = images

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def augmented(self) -> bool:
        """Whether a view changes the images."""
        return self.name == "train" and self.spec.augment != "none"

    def batches(
        self,
        batch_size: int,
        *,
        order: Tensor | None = None,
        view: int | None = None,
        device: str | torch.device = "cpu",
        channels_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield indices [batch] (on the CPU), images float32 [batch, channels, size, size] and labels [batch].

        ``order`` are the indices of the images, int64 (None: all, as they lie). ``view`` None leaves the images plain;
        ``view`` k is the k-th augmentation of every image, the same in any order and batch size.

        Raises:
            Error: an image file is damaged.
        """
        indices = torch.arange(len(self)) if order is None else order.cpu()
        chunks = indices.split(batch_size)
        for chunk, pixels in zip(chunks, self._images.batches(chunks, view), strict=True):
            images = normalised(pixels.to(device), self.spec.mean, self.spec.std)
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            yield chunk, images, self.labels[chunk].to(device)

    @property
    def unlabelled(self) -> int:
        """How many images have no label; they stand behind those that have."""
        return len(self._images.second) if isinstance(self._images, JoinedImages) else 0

    def labelled(self) -> Split:
        """Return the images that have a label."""
        if not isinstance(self._images, JoinedImages):
            return self
        first = self._images.first
        return Split(self.name, first, self.labels[: len(first)], self.spec)

    def prepare(self) -> None:
        """Read images that live in memory now, with a bar of their own, and not when the first batch is asked for."""
        for place in {0, len(self) - 1}:  # the last may be of another source than the first
            for _ in self.batches(1, order=torch.tensor([place])):
                pass

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and std of every channel of the plain images, in 0..1; of a sample where they are large."""
        indices = torch.arange(len(self))
        size = self.spec.image_size
        if size > SMALL or not fits_in_memory(len(self), self.spec.in_channels, size):
            indices = indices[:: math.ceil(len(self) / SAMPLE)]
        return statistics(self._images.batches(indices.split(256), None))

    def under(self, spec: DataSpec) -> Split:
        """Return the same images, normalised as ``spec`` says."""
        return Split(self.name, self._images, self.labels, spec)


@dataclass(frozen=True)
class Data:
    """An opened data set: what it is, and its splits. Test is for reports alone, never for a choice."""

    spec: DataSpec
    train: Split
    val: Split
    test: Split | None
    unlabelled: str | None = None
    """What is typed after ``--unlabelled``, with the images of the train split that have no label."""

    def split(self, name: str) -> Split:
        """Return the split ``train``, ``val`` or ``test``.

        Raises:
            UsageError: there is no such split.
        """
        splits = {"train": self.train, "val": self.val, "test": self.test}
        found = splits.get(name)
        if found is None:
            there = ", ".join(name for name, split in splits.items() if split is not None)
            raise UsageError(f"{self.spec.name}: has no {name} split; it has {there}")
        return found

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Data:
        """Return the same images under another mean and std (one number a channel, for images in 0..1)."""
        spec = dataclasses.replace(self.spec, mean=mean, std=std)
        test = None if self.test is None else self.test.under(spec)
        return Data(spec, self.train.under(spec), self.val.under(spec), test, self.unlabelled)


def open_data(options: DataOptions, *, image_size: int | None = None, in_channels: int | None = None) -> Data:
    """Open the data set that the options name.

    ``image_size`` (pixels) and ``in_channels`` are those of the data set where they are not given.

    Raises:
        UsageError: there is no such data set, or its images cannot be had in that form.
        Error: its files are missing or damaged.
    """
    if options.data is None:
        raise UsageError("no data set is named; name one with --data")
    root = options.data_dir or _from_environment()
    raw = _load(options.data, root, download=options.download)
    channels = in_channels or raw.channels
    check_channels(raw.channels, channels)
    mean, std = (0.0,) * channels, (1.0,) * channels
    if raw.mean is not None and raw.std is not None:
        mean, std = statistics_for(raw.mean, raw.std, channels)
    name = options.data.partition(":")[0]
    spec = DataSpec(
        name=options.data if raw.argument is None else f"{name}:{raw.argument}",
        directory=_absolute(root),
        subset=options.subset,
        validation=options.validation,
        split_seed=options.split_seed,
        augment=options.augment,
        image_size=image_size or raw.image_size,
        in_channels=channels,
        classes=raw.classes,
        mean=mean,
        std=std,
    )
    data = _open(raw, spec, _unlabelled(options.unlabelled, root))
    if options.mean is not None or options.std is not None:
        return data.normalised(options.mean or mean, options.std or std)
    return data if raw.mean is not None else data.normalised(*data.train.labelled().statistics())


def open_spec(spec: DataSpec, data_dir: str | Path | None = None, unlabelled: str | None = None) -> Data:
    """Open the data set that a checkpoint remembers, with the images of another that need no labels.

    It is looked for in ``data_dir``, else in the directory that is remembered, else in that of KDTOOL_DATA.

    Raises:
        Error: its files are missing or damaged, or its classes are others now.
    """
    root = Path(data_dir) if data_dir is not None else None
    if root is None and spec.directory is not None and Path(spec.directory).is_dir():
        root = Path(spec.directory)
    root = root or _from_environment()
    raw = _load(spec.name, root)
    if raw.classes != spec.classes:
        raise Error(
            f"{spec.name}: its classes ({_few(raw.classes)}) are not those of the checkpoint ({_few(spec.classes)})"
            "; name the right data set with --data or --data-dir"
        )
    more = _unlabelled(unlabelled, Path(data_dir) if data_dir is not None else root)
    return _open(raw, dataclasses.replace(spec, directory=_absolute(root) or spec.directory), more)


def _unlabelled(name: str | None, root: Path | None) -> tuple[str, RawSplit] | None:
    """Return images to be learnt from without labels, and what they are called."""
    if name is None:
        return None
    kind, _, argument = name.partition(":")
    dataset: Dataset = make("datasets", kind)
    with _named(f"--unlabelled {kind}"):
        images = dataset.images(argument, None if root is None else root.expanduser())
        return name, RawSplit(images, torch.full((len(images),), UNLABELLED))


def _from_environment() -> Path | None:
    told = os.environ.get("KDTOOL_DATA")
    return Path(told) if told else None


def _absolute(root: Path | None) -> str | None:
    return None if root is None else str(root.expanduser().resolve())


def _load(spec: str, root: Path | None, *, download: bool = False) -> RawData:
    name, _, argument = spec.partition(":")
    dataset: Dataset = make("datasets", name, **({"download": True} if download else {}))
    with _named(name):
        return dataset.load(argument, None if root is None else root.expanduser())


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which data set an error is about."""
    try:
        yield
    except Error as error:
        raise type(error)(f"{name}: {error}") from error


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f", ... {len(names)} in all" if len(names) > 4 else "")


def _open(raw: RawData, spec: DataSpec, unlabelled: tuple[str, RawSplit] | None = None) -> Data:
    """Split a data set and prepare its images as ``spec`` says; the train split ends in the unlabelled images.

    Validation is split off before the subset is taken, so that every subset is validated on the same images.
    """
    train, val = raw.train, raw.val
    if val is None:
        with _named(spec.name):
            train, val = train.hold_out(spec.validation, derive("validation", spec.split_seed))
    train = train.take(spec.subset, derive("subset", spec.split_seed))
    parts = {"train": train, "val": val} | ({} if raw.test is None else {"test": raw.test})
    more = {} if unlabelled is None else {"unlabelled": unlabelled[1]}
    # All splits are prepared alike, and so do not depend on the subset.
    size, channels = spec.image_size, spec.in_channels
    in_memory = fits_in_memory(sum(len(part) for part in (*parts.values(), *more.values())), channels, size)
    images = {
        name: images_of(
            part,
            raw,
            size=size,
            channels=channels,
            in_memory=in_memory,
            augment=spec.augment == "standard" and name in ("train", "unlabelled"),
            seed=spec.split_seed,
        )
        for name, part in (parts | more).items()
    }
    splits = {name: Split(name, images[name], part.labels, spec) for name, part in parts.items()}
    if unlabelled is not None:
        labels = torch.cat([train.labels, unlabelled[1].labels])
        splits["train"] = Split("train", JoinedImages(images["train"], images["unlabelled"]), labels, spec)
    return Data(spec, splits["train"], splits["val"], splits.get("test"), None if unlabelled is None else unlabelled[0])
