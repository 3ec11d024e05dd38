"""Random changes of an image after it was cropped and mirrored: TrivialAugment, RandAugment and random erasing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdtool.utils.seeds import derive, forked

if TYPE_CHECKING:
    pass

AUTOMATIC = ("trivial", "rand")
"""The values of ``--augment`` that change an image after ``standard``."""

# An odd number of 64 bits, half of them set, which spreads the indices of images over all seeds.
_SPREAD = 0x9E3779B97F4A7C15

# Images that are changed together take at most this many bytes. The more they are, the more of them go through the
# same operation, and torchvision takes several images in a fraction of the time that it takes for one after another.
TOGETHER_BYTES = 2**24


def seed_of(first: int, index: int) -> int:
    """Return the seed of one image's changes, 0 <= seed < 2**63; ``first`` is that of the view."""
    return first ^ (index * _SPREAD & (2**63 - 1))


@dataclass(frozen=True)
class Changes:
    """Changes of a view; those of an image depend on the seed, the view and the image's index alone.

    ``augment`` is ``trivial`` (TrivialAugment, Mueller and Hutter, 2021, arXiv:2103.10158), ``rand`` (RandAugment,
    Cubuk et al., 2020, arXiv:1909.13719: two operations of magnitude 9) or anything else for none. Then, with the
    probability ``erase``, a rectangle of 0.02 to 0.33 of the image's area is filled with ``fill``, one number for each
    channel (random erasing, Zhong et al., 2020, arXiv:1708.04896). All are those of ``torchvision.transforms.v2``,
    with its defaults.
    """

    seed: int
    augment: str
    erase: float
    fill: tuple[int, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out torchvision's transforms, which every process makes for itself."""
        return Changes, (self.seed, self.augment, self.erase, self.fill)

    @cached_property
    def _operations(self) -> _Operations | None:
        from torchvision.transforms import v2

        automatic = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}
        return _Operations(automatic[self.augment]()) if self.augment in automatic else None

    @cached_property
    def _eraser(self) -> Any:
        from torchvision.transforms import v2

        return v2.RandomErasing(self.erase, value=list(map(float, self.fill)), inplace=True) if self.erase else None

    def __call__(self, images: Tensor, indices: Tensor, view: int) -> Tensor:
        """Return a changed copy of uint8 images [batch, channels, height, width].

        ``indices`` [batch] are their places in the split. torch's global random state is left as it was.
        """
        changed = images.clone()
        rows = changed.unbind()
        first = derive("changes", self.seed, view)
        states: list[Tensor] = []
        with forked():
            for row, index in zip(rows, indices.tolist(), strict=True):
                torch.default_generator.manual_seed(seed_of(first, index))
                if self._operations is not None:
                    self._operations.draw(row)
                if self._eraser is not None:
                    states.append(torch.get_rng_state())
        return changed


class _Operations:
    pass
