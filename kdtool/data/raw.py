"""What a data set's plugin returns: images as they are, labels, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdtool.errors import Error
from kdtool.utils.seeds import derive


@dataclass(frozen=True)
class RawSplit:
    """Images, either uint8 [images, channels, height, width] or the paths of image files, and their
    class indices, int64 [images]."""

    images: Tensor | tuple[Path, ...]
    labels: Tensor

    def __post_init__(self) -> None:
        if isinstance(self.images, Tensor) and (self.images.dtype != torch.uint8 or self.images.ndim != 4):
            found = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise Error(f"images must be uint8 [images, channels, height, width], not {found}")
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
        """Return what is left and a seeded ``fraction`` of every class, at least one image of each.

        A class of one image stays where it is.

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
    """A data set as its files hold it.

    ``classes`` are the names behind the labels, ``channels`` and ``image_size`` (pixels) what an image has unless a
    user asks for another. ``mean`` and ``std``, one number a channel for images in 0..1, are the published ones; where
    there are none they are computed from the train split. ``padding`` (pixels at ``image_size``) and ``flip`` are the
    standard augmentation: a random crop of the padded image, and whether an image may be mirrored. ``argument`` is
    the one by which the data set is found from elsewhere, where that is not the one that was typed.
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
            raise Error("mean and std are given together, or neither")
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

    Of each class at least one image is selected and ``leave`` images are not. A smaller fraction selects a part of
    what a larger one does.
    """
    generator = torch.Generator().manual_seed(derive("stratified", seed))
    selected = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = min(max(1, round(fraction * len(members))), len(members) - leave)
        selected.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(selected).sort().values


# The class of an image without a label; the one that PyTorch's cross-entropy leaves out.
UNLABELLED = -100
