"""Random changes of an image after it was cropped and mirrored: TrivialAugment, RandAugment and random erasing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdtool.utils.seeds import derive, forked

if TYPE_CHECKING:
    from kdtool.data.images import Images

AUTOMATIC = ("trivial", "rand")
"""The values of ``--augment`` that change an image after ``standard``."""

# An odd number of 64 bits, half of them set, which spreads the indices of images over all seeds.
_SPREAD = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Changes:
    """Changes of a view; those of an image depend on the seed, the view and the image's index alone.

    ``augment`` is ``trivial`` (TrivialAugment, Mueller and Hutter, 2021, arXiv:2103.10158), ``rand`` (RandAugment,
    Cubuk et al., 2020, arXiv:1909.13719: two operations of magnitude 9) or anything else for none. Then, with the
    probability ``erase``, a rectangle of 0.02 to 0.33 of the image's area is filled with ``fill``, one number for each
    channel (random erasing, Zhong et al., 2020, arXiv:1708.04896). All are those of ``torchvision.transforms.v2``.
    """

    seed: int
    augment: str
    erase: float
    fill: tuple[int, ...]

    @cached_property
    def _transforms(self) -> list[Any]:
        from torchvision.transforms import v2

        automatic = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}
        transforms: list[Any] = [automatic[self.augment]()] if self.augment in automatic else []
        if self.erase:
            transforms.append(v2.RandomErasing(self.erase, value=list(map(float, self.fill))))
        return transforms

    def __call__(self, images: Tensor, indices: Tensor, view: int) -> Tensor:
        """Return a changed copy of uint8 images [batch, channels, height, width].

        ``indices`` [batch] are their places in the split. torch's global random state is left as it was.
        """
        changed = torch.empty_like(images)
        first = derive("changes", self.seed, view)
        with forked():
            for row, index in enumerate(indices.tolist()):
                torch.default_generator.manual_seed(first ^ (index * _SPREAD & (2**63 - 1)))
                image = images[row]
                for transform in self._transforms:
                    image = transform(image)
                changed[row] = image
        return changed


def changes_of(seed: int, augment: str, erase: float, mean: Sequence[float]) -> Changes | None:
    """Return the changes of a view, or None if there are none; ``mean``, in 0..1, fills what is erased."""
    if augment not in AUTOMATIC and not erase:
        return None
    return Changes(seed, augment, erase, tuple(round(255 * value) for value in mean))


class ChangedImages:
    """Images that are changed in every view, after all else."""

    def __init__(self, images: Images, changes: Changes) -> None:
        """Change the views of ``images``."""
        self.images, self.changes = images, changes

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, chunks: Sequence[Tensor], view: int | None) -> Iterator[Tensor]:
        """Yield uint8 [batch, channels, size, size] for each tensor of indices."""
        for chunk, images in zip(chunks, self.images.batches(chunks, view), strict=True):
            yield images if view is None else self.changes(images, chunk, view)
