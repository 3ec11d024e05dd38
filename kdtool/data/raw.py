"""What a data set plugin returns: the original images, their labels and their description."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from kdtool.data.hold_out import hashed, stratified
from kdtool.errors import Error
from kdtool.utils.formatting import printable

# An image inside of a larger file is read into memory before it is decoded.
LARGEST_PART = 2**28


class FilePart(NamedTuple):
    """An image file inside of a larger file: its ``size`` bytes from ``start`` on, as they are, without compression.

    ``name`` is what the image is called there, for messages. Where the image lies decides what is read: a name that a
    stranger wrote never becomes a path.
    """

    path: Path
    start: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}: {self.name}"


ImageSource = Path | FilePart
"""A file, or a part of one, that holds one image."""


def file_of(source: ImageSource) -> Path:
    """Return the path of an image file, or of the file that the image is a part of."""
    return source.path if isinstance(source, FilePart) else source


def open_bytes(source: ImageSource) -> BinaryIO:
    """Open an image file, or read the part of a file that is one.

    Raises:
        OSError: it cannot be read.
        ValueError: the file ends before that part, or the part is larger than `LARGEST_PART`.
    """
    if not isinstance(source, FilePart):
        return open(source, "rb")
    if not 0 <= source.size <= LARGEST_PART:
        raise ValueError(f"it has {source.size:,} bytes, more than {LARGEST_PART >> 20} MiB")
    with open(source.path, "rb") as file:
        file.seek(source.start)
        content = file.read(source.size)
    if len(content) < source.size:
        raise ValueError("the file ends before the image")
    return io.BytesIO(content)


@dataclass(frozen=True)
class RawSplit:
    """Images and their labels.

    ``images`` are uint8 [images, channels, height, width], or image files: a path or a `FilePart` for each; ``labels``
    are class indices, int64 [images]. ``keys`` name the images where their number and order may change, as those of a
    folder: the path of each file below the folder of the data set, with ``/``. They decide to which split an image
    belongs (see `kdtool.data.hold_out`), and stay the same if the folder is moved.
    """

    images: Tensor | tuple[ImageSource, ...]
    labels: Tensor
    keys: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.images, Tensor) and (self.images.dtype != torch.uint8 or self.images.ndim != 4):
            actual = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise Error(f"images must be uint8 [images, channels, height, width], not {actual}")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise Error(f"labels must be int64 [images], not {self.labels.dtype} {tuple(self.labels.shape)}")
        if len(self.images) != len(self.labels):
            raise Error(f"{len(self.images)} images have {len(self.labels)} labels; the files do not belong together")
        if not len(self.labels):
            raise Error("a split has no images")
        if self.keys is not None and len(self.keys) != len(self.labels):
            raise Error(f"{len(self.labels)} images have {len(self.keys)} keys")
        if self.keys is not None and len(set(self.keys)) < len(self.keys):
            raise Error("two images have the same key; a key names one image")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> RawSplit:
        """Return the images at ``indices``, int64 [selected], in that order."""
        chosen = indices.tolist()
        keys = None if self.keys is None else tuple(self.keys[index] for index in chosen)
        if isinstance(self.images, Tensor):
            return RawSplit(self.images[indices], self.labels[indices], keys)
        return RawSplit(tuple(self.images[index] for index in chosen), self.labels[indices], keys)

    def labelled_by(self, places: Tensor) -> RawSplit:
        """Return the same images, with the class index ``places[label]`` for each label; int64 [classes]."""
        return dataclasses.replace(self, labels=places[self.labels])

    def take(self, fraction: float, seed: int, by: str | None = None) -> RawSplit:
        """Return a seeded ``fraction`` of every class, at least one image of each; see `hold_out`."""
        return self if fraction == 1 else self.select(self._chosen(fraction, seed, by, "subset", leave=0))

    def hold_out(
        self, fraction: float, seed: int, by: str | None = None, purpose: str = "test"
    ) -> tuple[RawSplit, RawSplit]:
        """Split off a seeded ``fraction`` of every class, at least one image of each; return the rest and that part.

        ``by`` is ``path`` or ``order``. With ``path``, the default where there are ``keys``, the part depends on each
        key alone, so that its size is only about that fraction; with ``order`` it is drawn from all images. What is
        held out for one ``purpose`` (``test`` or ``validation``) is independent of what is for the other. The only
        image of a class stays in the rest.

        Raises:
            Error: no class has two images.
        """
        held = self._chosen(fraction, seed, by, purpose, leave=1)
        if not len(held):
            raise Error("no class has more than one image, so none can be held out; add images")
        rest = torch.ones(len(self), dtype=torch.bool)
        rest[held] = False
        return self.select(rest.nonzero().flatten()), self.select(held)

    @property
    def split_by(self) -> str:
        """How images are held out by default: by their ``path``, or in their ``order`` if they have no keys."""
        return "order" if self.keys is None else "path"

    def _chosen(self, fraction: float, seed: int, by: str | None, purpose: str, *, leave: int) -> Tensor:
        if self.keys is None or by == "order":
            return stratified(self.labels, fraction, seed, leave=leave)
        return hashed(self.keys, self.labels, fraction, seed, purpose, leave=leave)


@dataclass(frozen=True)
class RawData:
    """A data set as its files store it.

    ``classes`` are the names of the labels. ``channels`` and ``image_size`` (pixels) are the defaults, unless a user
    asks for others; None for image files: all of them are looked at (see `kdtool.data.file_index`). ``mean`` and
    ``std``, one number per channel for images in 0..1, are the published ones; if they are None, they are computed from
    the train split. ``padding`` (pixels at ``image_size``) and ``flip`` define the standard augmentation: a random crop
    of the padded image, and whether an image may be mirrored; None for image files: an eighth of the image size, and
    mirrored if they are in colour. ``argument`` replaces the typed argument in checkpoints, for example by an absolute
    path that is valid from any directory. Without a test split, ``test_fraction`` of every class is held out for it,
    the same part for every seed of the user. ``notes`` are lines that a user has to know, such as what was left out.
    """

    train: RawSplit
    val: RawSplit | None
    test: RawSplit | None
    classes: tuple[str, ...]
    channels: int | None
    image_size: int | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    padding: int | None = 0
    flip: bool | None = False
    argument: str | None = None
    test_fraction: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            names = ", ".join(map(printable, self.classes))
            raise Error(f"{len(self.classes)} class ({names}); a classifier needs two or more")
        if len(set(self.classes)) < len(self.classes):
            raise Error("two classes have the same name")
        if (self.mean is None) != (self.std is None):
            raise Error("mean and std must be given together, or neither")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and self.channels is not None and len(numbers) != self.channels:
                raise Error(f"{name} has {len(numbers)} numbers for {self.channels} channels")
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            if split is not None:
                self._check(name, split)
        missing = set(range(len(self.classes))) - set(self.train.labels.unique().tolist())
        if missing:
            raise Error(f"the train split has no image of class {printable(self.classes[min(missing)])!r}; add some")

    def _check(self, name: str, split: RawSplit) -> None:
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= len(self.classes):
            raise Error(f"the {name} split has labels {low} to {high}, but there are {len(self.classes)} classes")
        if isinstance(split.images, Tensor) and (self.channels is None or self.image_size is None):
            raise Error(f"the {name} split is in memory, so channels and image_size must be given")
        if isinstance(split.images, Tensor) and split.images.shape[1] != self.channels:
            raise Error(f"the {name} split has {split.images.shape[1]} channels, not {self.channels}")


# The label of an image without a label; PyTorch's cross-entropy ignores it by default.
UNLABELLED = -100
