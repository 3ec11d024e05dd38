"""Random changes of an image after it was cropped and mirrored: TrivialAugment, RandAugment and random erasing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kdtool.data.deferred import Deferred
from kdtool.errors import UsageError
from kdtool.utils.seeds import derive, forked

AUTOMATIC = ("trivial", "rand")
"""The values of ``--augment`` that change an image after ``standard``."""

# An odd number of 64 bits, half of them set, which spreads the indices of images over all seeds.
_SPREAD = 0x9E3779B97F4A7C15


def seed_of(first: int, index: int) -> int:
    """Return the seed of the changes of image ``index``, 0 <= seed < 2**63: ``first`` xor 0x9E3779B97F4A7C15 * index.

    The product is modulo 2**63. ``first`` is the view's ``derive("changes", seed of the splits, view)``; a hash for
    each image would take longer.
    """
    return first ^ (index * _SPREAD & (2**63 - 1))


@dataclass(frozen=True)
class Changes:
    """Changes of a view; those of an image depend on the seed, the view and the image's index alone.

    ``augment`` is ``trivial`` (TrivialAugment, Mueller and Hutter, 2021, arXiv:2103.10158), ``rand`` (RandAugment,
    Cubuk et al., 2020, arXiv:1909.13719: two operations of magnitude 9) or anything else for none. Then, with the
    probability ``erase``, a rectangle of 0.02 to 0.33 of the image's area is filled with ``fill``, one number for each
    channel (random erasing, Zhong et al., 2020, arXiv:1708.04896). All are those of ``torchvision.transforms.v2``,
    which draw from torch's global generator after it was given the image's seed.
    """

    seed: int
    augment: str
    erase: float
    fill: tuple[int, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out torchvision's transforms: every process makes its own."""
        return Changes, (self.seed, self.augment, self.erase, self.fill)

    @cached_property
    def _automatic(self) -> Deferred | None:
        from torchvision.transforms import v2

        if self.augment not in AUTOMATIC:
            return None
        transform = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}[self.augment]()
        return Deferred(transform, "_apply_image_or_video_transform")

    @cached_property
    def _eraser(self) -> Deferred | None:
        from torchvision.transforms import v2

        if not self.erase:
            return None
        return Deferred(v2.RandomErasing(self.erase, value=list(map(float, self.fill)), inplace=True), "transform")

    def load(self) -> None:
        """Import torchvision now, so that worker processes that are started later need not, each in every epoch."""
        _ = self._automatic, self._eraser

    def __call__(self, images: Tensor, indices: Tensor, view: int) -> Tensor:
        """Return a changed copy of uint8 images [batch, channels, height, width].

        ``indices`` [batch] are their places in the split. torch's global random state is left as it was.
        """
        changed = images.clone(memory_format=torch.contiguous_format)
        first, automatic, eraser = derive("changes", self.seed, view), self._automatic, self._eraser
        operations, erased = [], []
        with forked():
            for row, index in zip(changed.unbind(), indices.tolist(), strict=True):
                torch.default_generator.manual_seed(seed_of(first, index))
                if automatic is not None:
                    operations.append(automatic.draw(row))
                if eraser is not None:
                    erased.append(eraser.draw(row))
        if automatic is not None:
            automatic.change_all(changed, operations)
        if eraser is not None:
            for image, steps in zip(changed, erased, strict=True):
                for step in steps:
                    eraser.change(image, step)  # in place
        return changed


def changes_of(seed: int, augment: str, erase: float, mean: Sequence[float]) -> Changes | None:
    """Return the changes of a view, or None if there are none; ``mean``, in 0..1, fills what is erased.

    Raises:
        UsageError: ``augment`` is not for images of as many channels as ``mean`` has numbers.
    """
    if augment not in AUTOMATIC and not erase:
        return None
    if augment in AUTOMATIC and len(mean) not in (1, 3):
        raise UsageError(
            f"--augment {augment}: is for images of 1 channel or 3, and these have {len(mean)}; "
            "use --augment standard or none"
        )
    return Changes(seed, augment, erase, tuple(round(255 * value) for value in mean))
