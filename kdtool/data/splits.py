"""Data sets as a network sees them: reproducible splits that yield normalised batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import torch
from torch import Tensor

from kdtool.data.checks import tell
from kdtool.data.hold_out import stratified
from kdtool.data.images import Images, JoinedImages, SelectedImages, fits_in_memory, images_on
from kdtool.data.pixels import normalised, statistics
from kdtool.data.preparation import SMALL
from kdtool.data.spec import DataSpec
from kdtool.errors import UsageError
from kdtool.utils.seeds import derive
from kdtool.utils.transfer import on_device

# Mean and std of large images are computed from this many images, evenly spaced.
SAMPLE = 1000

# As many small batches are made together as take at most about this many bytes: many operations on few pixels take
# longer than few operations on many. On the CPU all of it stays in a processor's second cache; a CUDA device is only
# busy with more.
TOGETHER_BYTES, TOGETHER_BYTES_CUDA = 2**20, 2**24


def _groups(sizes: Sequence[int], images: int) -> list[list[int]]:
    """Return the sizes of batches in groups of those next to each other, of at most ``images`` images or one batch."""
    groups: list[list[int]] = []
    left = 0
    for size in sizes:
        if not groups or size > left:
            groups.append([])
            left = images
        groups[-1].append(size)
        left -= size
    return groups


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
        return self.name == "train" and (self.spec.augment != "none" or self.spec.erase > 0)

    def batches(
        self,
        batch_size: int | Sequence[int],
        *,
        order: Tensor | None = None,
        view: int | None = None,
        device: str | torch.device = "cpu",
        channels_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield indices [batch] (on the CPU), images float32 [batch, channels, size, size] and labels [batch].

        ``batch_size`` is that of all batches, or a list of the size of each. ``order`` holds the indices of the images,
        int64 (None: all, in their stored order). ``view`` None yields plain images; ``view`` k is the k-th augmentation
        of every image, independent of the order and the batch size.

        Raises:
            Error: an image file is damaged.
        """
        indices = torch.arange(len(self)) if order is None else order.cpu()
        sizes = [batch_size] * math.ceil(len(indices) / batch_size) if isinstance(batch_size, int) else list(batch_size)
        if isinstance(batch_size, int) and sizes:
            sizes[-1] -= batch_size * len(sizes) - len(indices)
        together = TOGETHER_BYTES_CUDA if torch.device(device).type == "cuda" else TOGETHER_BYTES
        groups = _groups(sizes, together // (self.spec.in_channels * self.spec.image_size**2))
        chunks = indices.split([sum(group) for group in groups])
        made = on_device(self._images.batches(chunks, view), device)
        for group, chunk, pixels in zip(groups, chunks, made, strict=True):
            images = normalised(pixels, self.spec.mean, self.spec.std)
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            labels = self.labels[chunk].to(device, non_blocking=True)
            yield from zip(chunk.split(group), images.split(group), labels.split(group), strict=True)

    @property
    def unlabelled(self) -> int:
        """The number of images without a label; they follow those with one."""
        return len(self._images.second) if self.name == "train" and isinstance(self._images, JoinedImages) else 0

    def labelled(self) -> Split:
        """Return the split without the images that have no label."""
        if not self.unlabelled:
            return self
        assert isinstance(self._images, JoinedImages)
        first = self._images.first
        return Split(self.name, first, self.labels[: len(first)], self.spec)

    def followed_by(self, other: Split) -> Split:
        """Return the images of this split, then those of another one, as a split ``all``."""
        labels = torch.cat([self.labels, other.labels])
        return Split("all", JoinedImages(self._images, other._images), labels, self.spec)

    def first(self, count: int) -> Split:
        """Return the first ``count`` images; all of them if there are no more."""
        return self if count >= len(self) else Split(self.name, self._images, self.labels[:count], self.spec)

    def part(self, fraction: float, seed: int) -> Split:
        """Return a seeded ``fraction`` of every class, and of the images without a label."""
        if fraction == 1:
            return self
        chosen = stratified(self.labels, fraction, derive("part", seed))
        images: Images
        if isinstance(self._images, JoinedImages):
            first, second = self._images.first, self._images.second
            border = len(first)
            labelled, others = chosen[chosen < border], chosen[chosen >= border] - border
            images = JoinedImages(SelectedImages(first, labelled), SelectedImages(second, others))
        else:
            images = SelectedImages(self._images, chosen)
        return Split(self.name, images, self.labels[chosen], self.spec)

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

    def on(self, device: torch.device) -> tuple[Split, int]:
        """Return the same images with views that are made on ``device``, and how many bytes they will take there.

        Raises:
            HostOnlyError: their views are made in the memory of the host alone, see `kdtool.data.images.images_on`.
        """
        images, taken = images_on(self._images, device)
        return Split(self.name, images, self.labels, self.spec), taken

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
    prepared: Callable[[DataSpec], Data] | None = dataclasses.field(default=None, repr=False, compare=False)
    """Prepares the same images by another description."""
    drawn: tuple[str, ...] = ()
    """The names of the splits that are drawn from the training images, because the data set has none."""

    def split(self, name: str, option: str | None = None) -> Split:
        """Return the split ``train``, ``val`` or ``test``, or ``all`` images that have a label.

        ``option`` is the user's option that names it, if any.

        Raises:
            UsageError: there is no such split.
        """
        if name == "all":
            return reduce(Split.followed_by, [part for part in (self.train.labelled(), self.val, self.test) if part])
        splits = {"train": self.train, "val": self.val, "test": self.test}
        split = splits.get(name)
        if split is None:
            available = ", ".join(key for key, value in splits.items() if value is not None)
            hint = f": add {option} val" if option else ""
            raise UsageError(f"{self.spec.name}: has no {name} split; it has {available}{hint}")
        return split

    def measured(self, name: str, known: DataSpec | None) -> Split:
        """Return the split that ``--split`` names; say it if it is only drawn, and ``known`` does not describe it.

        Raises:
            UsageError: there is no such split.
        """
        split = self.split(name, "--split")
        if name in self.drawn and (known is None or known.splits.get(name) != self.spec.splits.get(name)):
            of = f"{len(split):,} of its {len(self.split('all')):,} images are drawn for it and measured"
            tell(f"{self.spec.name}: has no {name} split; {of} (--split all: all images)")
        return split

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Data:
        """Return the same images normalised by another mean and std (one number per channel, for images in 0..1)."""
        spec = dataclasses.replace(self.spec, mean=mean, std=std)
        if spec.erase and self.prepared is not None:
            return self.prepared(spec)  # what is erased is filled with the mean
        test = None if self.test is None else self.test.under(spec)
        return dataclasses.replace(self, spec=spec, train=self.train.under(spec), val=self.val.under(spec), test=test)

    def part(self, fraction: float) -> Data:
        """Return the same data with a ``fraction`` of the train split, seeded by ``--split-seed``."""
        if fraction == 1:
            return self
        again = None if self.prepared is None else partial(_prepared_part, self.prepared, fraction)
        return dataclasses.replace(self, train=self.train.part(fraction, self.spec.split_seed), prepared=again)

    def with_augmentation(self, augment: str, erase: float) -> Data:
        """Return the same images with another augmentation of the train split; no file is opened again.

        ``augment`` and ``erase`` are values of the options of these names.
        """
        spec = dataclasses.replace(self.spec, augment=augment, erase=erase)
        if spec == self.spec:
            return self
        assert self.prepared is not None
        return self.prepared(spec)


def _prepared_part(prepared: Callable[[DataSpec], Data], fraction: float, spec: DataSpec) -> Data:
    return prepared(spec).part(fraction)
