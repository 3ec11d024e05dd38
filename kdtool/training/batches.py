"""Batches of a split together with what frozen networks make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdtool.data.splits import Split
from kdtool.features.taps import Tap
from kdtool.training.engine import Engine
from kdtool.training.frozen_network import LOGITS, FrozenNetwork


@dataclass(frozen=True)
class Batch:
    """What a step is given.

    ``inputs`` are images [batch, channels, height, width], or what the frozen part of the student made of them;
    ``target`` class indices [batch]; ``teacher`` logits [batch, classes], empty where they are not wanted; ``maps`` the
    teacher's outputs at its taps. All but ``indices`` are on the engine's device.
    """

    indices: Tensor
    inputs: Tensor
    target: Tensor
    teacher: Tensor
    maps: list[Tensor]


@dataclass
class DistillationBatches:
    """A split, the teacher that is asked about its images, and the frozen part of the student that they go through.

    ``begin`` is where the student's trained part begins; ``views`` is how many augmentations come again and again (0:
    each is new, and none is cached).
    """

    split: Split
    engine: Engine
    teacher: FrozenNetwork | None = None
    logits: bool = False
    taps: Sequence[Tap] = ()
    student: FrozenNetwork | None = None
    begin: Tap | None = None
    views: int = 0

    def __len__(self) -> int:
        return len(self.split)

    def view(self, epoch: int) -> int | None:
        """Return the augmentation of an epoch: a new one, or one of the few that come again."""
        if not self.split.augmented:
            return None
        asked = self.student is not None or (self.teacher is not None and (self.logits or self.taps))
        return epoch % self.views if asked and self.views else epoch

    def batches(self, batch_size: int, *, order: Tensor | None = None, view: int | None = None) -> Iterator[Batch]:
        """Yield the batches of ``order`` (None: all, as they lie) under a view (None: plain)."""
        wanted: list[Tap | str] = [*([LOGITS] if self.logits else []), *self.taps]
        keep = view is None or self.views > 0
        name, images = self.split.name, len(self.split)
        taught = begun = None
        if self.teacher is not None and wanted:
            taught = self.teacher.look(wanted, split=name, images=images, view=view, keep=keep)
        if self.student is not None and self.begin is not None:
            begun = self.student.look([self.begin], split=name, images=images, view=view, keep=keep)
        looks = [look for look in (taught, begun) if look is not None]
        blind = begun is not None and not any(look.needs_images for look in looks)
        indices = torch.arange(len(self)) if order is None else order.cpu()
        for chunk, pixels, target in self._raw(indices, batch_size, view, blind=blind):
            seen = taught(chunk, pixels) if taught is not None else []
            logits = seen.pop(0) if taught is not None and self.logits else torch.empty(0)
            inputs = begun(chunk, pixels)[0] if begun is not None else pixels
            assert inputs is not None
            yield Batch(chunk, self._laid_out(inputs), target, logits, [one.float() for one in seen])
        for look in looks:
            look.close()

    def _raw(
        self, indices: Tensor, batch_size: int, view: int | None, *, blind: bool
    ) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Yield indices, images (None where nobody looks at them) and labels."""
        device = self.engine.device
        if blind:
            for chunk in indices.split(batch_size):
                yield chunk, None, self.split.labels[chunk].to(device)
            return
        yield from self.split.batches(
            batch_size, order=indices, view=view, device=device, channels_last=self.engine.channels_last
        )

    def _laid_out(self, inputs: Tensor) -> Tensor:
        as_images = self.begin is None or self.begin.layout == "nchw"
        if self.engine.channels_last and inputs.dim() == 4 and as_images:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs
