"""Batches in which every image is shown twice: as the training augments it, and with strong changes on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdtool.data.splits import Split
from kdtool.training.batches import Batch, DistillationBatches

STRONG = "rand"
"""The augmentation of the strong view (see `kdtool.data.augmentation`): RandAugment after the crop and the mirror."""


@dataclass
class TwoViews:
    """The batches of ``weak``, each followed by the strong view of the same images: twice as many rows."""

    weak: DistillationBatches
    strong: DistillationBatches

    @property
    def split(self) -> Split:
        """The split of the weak view."""
        return self.weak.split

    def __len__(self) -> int:
        return len(self.weak)

    def view(self, epoch: int) -> int | None:
        """Return the number of an epoch's augmentation; both views are cropped and mirrored alike in it."""
        return self.strong.view(epoch)

    def batches(
        self, batch_size: int | Sequence[int], *, order: Tensor | None = None, view: int | None = None
    ) -> Iterator[Batch]:
        """Yield batches of twice ``batch_size`` rows, all weak ones first; see `DistillationBatches.batches`."""
        both = (part.batches(batch_size, order=order, view=view) for part in (self.weak, self.strong))
        for weak, strong in zip(*both, strict=True):
            yield _joined(weak, strong)


def _joined(weak: Batch, strong: Batch) -> Batch:
    maps = [torch.cat(pair) for pair in zip(weak.maps, strong.maps, strict=True)]
    parts = None if weak.parts is None or strong.parts is None else torch.cat([weak.parts, strong.parts])
    names = ("indices", "inputs", "target", "teacher")
    indices, inputs, target, teacher = (torch.cat([getattr(weak, name), getattr(strong, name)]) for name in names)
    return Batch(indices, inputs, target, teacher, maps, parts)
