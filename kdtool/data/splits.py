"""Data sets as a network sees them: reproducible splits that yield normalised batches."""

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

# Mean and std of large images are computed from this many images, evenly spaced.
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
        """Whether a view differs from the plain images."""
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

        ``order`` holds the indices of the images, int64 (None: all, in their stored order). ``view`` None yields plain
        images; ``view`` k is the k-th augmentation of every image, independent of the order and the batch size.

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
        """The number of images without a label; they follow those with one."""
        return len(self._images.second) if isinstance(self._images, JoinedImages) else 0

    def labelled(self) -> Split:
        """Return the split without the images that have no label."""
        if not isinstance(self._images, JoinedImages):
            return self
        first = self._images.first
        return Split(self.name, first, self.labels[: len(first)], self.spec)

    def prepare(self) -> None:
        """Load images that are kept in memory now, under a progress bar of their own, instead of at the first batch."""
        for index in {0, len(self) - 1}:  # the last image may come from another source than the first
            for _ in self.batches(1, order=torch.tensor([index])):
                pass

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and std of every channel of the plain images, in 0..1; of a sample if the images are large."""
        indices = torch.arange(len(self))
        size = self.spec.image_size
        if size > SMALL or not fits_in_memory(len(self), self.spec.in_channels, size):
            indices = indices[:: math.ceil(len(self) / SAMPLE)]
        return statistics(self._images.batches(indices.split(256), None))

    def under(self, spec: DataSpec) -> Split:
        """Return the same images, normalised by the mean and std of ``spec``."""
        return Split(self.name, self._images, self.labels, spec)


@dataclass(frozen=True)
class Data:
    """An opened data set: its description and its splits. The test split is for reports only, never for a choice."""

    spec: DataSpec
    train: Split
    val: Split
    test: Split | None
    unlabelled: str | None = None
    """The value of ``--unlabelled``, if the train split ends in images without a label."""

    def split(self, name: str) -> Split:
        """Return the split ``train``, ``val`` or ``test``.

        Raises:
            UsageError: there is no such split.
        """
        splits = {"train": self.train, "val": self.val, "test": self.test}
        split = splits.get(name)
        if split is None:
            available = ", ".join(key for key, value in splits.items() if value is not None)
            raise UsageError(f"{self.spec.name}: has no {name} split; it has {available}")
        return split

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Data:
        """Return the same images normalised by another mean and std (one number per channel, for images in 0..1)."""
        spec = dataclasses.replace(self.spec, mean=mean, std=std)
        test = None if self.test is None else self.test.under(spec)
        return Data(spec, self.train.under(spec), self.val.under(spec), test, self.unlabelled)


def open_data(options: DataOptions, *, image_size: int | None = None, in_channels: int | None = None) -> Data:
    """Open the data set that the options name.

    ``image_size`` (pixels) and ``in_channels`` are by default those of the data set.

    Raises:
        UsageError: there is no such data set, or its images cannot be converted to that many channels.
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
    """Open the data set that a checkpoint describes, with the images of ``unlabelled`` added to its train split.

    Its files are searched in ``data_dir``, else in the recorded directory if that exists, else in KDTOOL_DATA.

    Raises:
        Error: its files are missing or damaged, or its classes have changed.
    """
    root = Path(data_dir) if data_dir is not None else None
    if root is None and spec.directory is not None and Path(spec.directory).is_dir():
        root = Path(spec.directory)
    root = root or _from_environment()
    raw = _load(spec.name, root)
    if raw.classes != spec.classes:
        raise Error(
            f"{spec.name}: its classes ({_shortened(raw.classes)}) are not those of the checkpoint "
            f"({_shortened(spec.classes)}); name the right data set with --data or --data-dir"
        )
    more = _unlabelled(unlabelled, Path(data_dir) if data_dir is not None else root)
    return _open(raw, dataclasses.replace(spec, directory=_absolute(root) or spec.directory), more)


def _unlabelled(name: str | None, root: Path | None) -> tuple[str, RawSplit] | None:
    """Return the name and the images of ``--unlabelled``."""
    if name is None:
        return None
    kind, _, argument = name.partition(":")
    dataset: Dataset = make("datasets", kind)
    with _naming(f"--unlabelled {kind}"):
        images = dataset.images(argument, None if root is None else root.expanduser())
        return name, RawSplit(images, torch.full((len(images),), UNLABELLED))


def _from_environment() -> Path | None:
    directory = os.environ.get("KDTOOL_DATA")
    return Path(directory) if directory else None


def _absolute(root: Path | None) -> str | None:
    return None if root is None else str(root.expanduser().resolve())


def _load(spec: str, root: Path | None, *, download: bool = False) -> RawData:
    name, _, argument = spec.partition(":")
    dataset: Dataset = make("datasets", name, **({"download": True} if download else {}))
    with _naming(name):
        return dataset.load(argument, None if root is None else root.expanduser())


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the name of the data set in front of the message of an error that the block raises."""
    try:
        yield
    except Error as error:
        raise type(error)(f"{name}: {error}") from error


def _shortened(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f", ... {len(names)} in all" if len(names) > 4 else "")


def _open(raw: RawData, spec: DataSpec, unlabelled: tuple[str, RawSplit] | None = None) -> Data:
    """Split a data set and prepare its images for ``spec``; the unlabelled images follow those of the train split.

    Validation is split off before the subset is taken, so that every subset is validated on the same images.
    """
    train, val = raw.train, raw.val
    if val is None:
        with _naming(spec.name):
            train, val = train.hold_out(spec.validation, derive("validation", spec.split_seed))
    train = train.take(spec.subset, derive("subset", spec.split_seed))
    parts = {"train": train, "val": val} | ({} if raw.test is None else {"test": raw.test})
    more = {} if unlabelled is None else {"unlabelled": unlabelled[1]}
    # All splits are prepared in the same way: what fits in memory is decided for all of them together.
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
