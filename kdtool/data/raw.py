"""What a data set plugin returns: the original images, their labels and their description."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdtool.errors import Error
from kdtool.utils.seeds import derive


@dataclass(frozen=True)
class RawSplit:
    """Images and their labels.

    ``images`` are uint8 [images, channels, height, width] or the paths of image files; ``labels`` are class indices,
    int64 [images].
    """

    images: Tensor | tuple[Path, ...]
    labels: Tensor

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

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> RawSplit:
        """Return the images at ``indices``, int64 [selected], in that order."""
        if isinstance(self.images, Tensor):
            return RawSplit(self.images[indices], self.labels[indices])
        return RawSplit(tuple(self.images[index] for index in indices.tolist()), self.labels[indices])

    def take(self, fraction: float, seed: int) -> RawSplit:
        """Return a seeded ``fraction`` of every class, at least one image of each."""
        return self if fraction == 1 else self.select(stratified(self.labels, fraction, seed))

    def hold_out(self, fraction: float, seed: int) -> tuple[RawSplit, RawSplit]:
        """Split off a seeded ``fraction`` of every class, at least one image of each; return the rest and that part.

        The only image of a class stays in the rest.

        Raises:
            Error: no class has two images.
        """
        held = stratified(self.labels, fraction, seed, leave=1)
        if not len(held):
            raise Error("no class has more than one image, so none can be held out; add images")
        rest = torch.ones(len(self), dtype=torch.bool)
        rest[held] = False
        return self.select(rest.nonzero().flatten()), self.select(held)


@dataclass(frozen=True)
class RawData:
    """A data set as its files store it.

    ``classes`` are the names of the labels; ``channels`` and ``image_size`` (pixels) are the defaults, unless a user
    asks for others. ``mean`` and ``std``, one number per channel for images in 0..1, are the published ones; if they
    are None, they are computed from the train split. ``padding`` (pixels at ``image_size``) and ``flip`` define the
    standard augmentation: a random crop of the padded image, and whether an image may be mirrored. ``argument``
    replaces the typed argument in checkpoints, for example by an absolute path that is valid from any directory.
    """

    train: RawSplit
    val: RawSplit | None
    test: RawSplit | None
    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    padding: int = 0
    flip: bool = False
    argument: str | None = None

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise Error(f"{len(self.classes)} class ({', '.join(self.classes)}); a classifier needs two or more")
        if len(set(self.classes)) < len(self.classes):
            raise Error("two classes have the same name")
        if (self.mean is None) != (self.std is None):
            raise Error("mean and std must be given together, or neither")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and len(numbers) != self.channels:
                raise Error(f"{name} has {len(numbers)} numbers for {self.channels} channels")
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            if split is not None:
                self._check(name, split)
        missing = set(range(len(self.classes))) - set(self.train.labels.unique().tolist())
        if missing:
            raise Error(f"the train split has no image of class {self.classes[min(missing)]!r}; add some")

    def _check(self, name: str, split: RawSplit) -> None:
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= len(self.classes):
            raise Error(f"the {name} split has labels {low} to {high}, but there are {len(self.classes)} classes")
        if isinstance(split.images, Tensor) and split.images.shape[1] != self.channels:
            raise Error(f"the {name} split has {split.images.shape[1]} channels, not {self.channels}")


def stratified(labels: Tensor, fraction: float, seed: int, *, leave: int = 0) -> Tensor:
    """Return the sorted indices of a seeded ``fraction`` of every class, int64 [selected].

    In each class at least one image is selected, but at least ``leave`` images are not. With the same seed, a smaller
    fraction selects a subset of what a larger one selects.
    """
    generator = torch.Generator().manual_seed(derive("stratified", seed))
    selected = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = min(max(1, round(fraction * len(members))), len(members) - leave)
        selected.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(selected).sort().values


# The label of an image without a label; PyTorch's cross-entropy ignores it by default.
UNLABELLED = -100
