"""Batches of a split, with the outputs of the frozen networks on them, and where its images are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdtool.data.images import HostOnlyError
from kdtool.data.raw import UNLABELLED
from kdtool.data.splits import Split
from kdtool.errors import first_line
from kdtool.features.taps import Tap
from kdtool.training.engine import Engine
from kdtool.training.frozen_network import LOGITS, FrozenNetwork
from kdtool.training.mixing import Mixing
from kdtool.utils.formatting import shown_bytes
from kdtool.utils.progress import say_once
from kdtool.utils.transfer import free_memory

# With --images-on auto the images may take this part of a GPU's free memory; the network needs the rest.
SHARE = 0.25


@dataclass(frozen=True)
class Batch:
    """The input of one step.

    ``indices`` [batch] are places in the split. ``inputs`` are images [batch, channels, height, width], or the outputs
    of the frozen part of the student on them. ``target`` [batch] are class indices, ``teacher`` logits
    [batch, classes], empty if no loss reads them, and ``maps`` the teacher's outputs at its taps. If the images are
    mixtures, ``parts`` [batch, classes] are those of their labels. All but ``indices`` are on the engine's device.
    """

    indices: Tensor
    inputs: Tensor
    target: Tensor
    teacher: Tensor
    maps: list[Tensor]
    parts: Tensor | None = None


@dataclass
class DistillationBatches:
    """The batches of a split: its images go through the teacher, and through the frozen part of the student.

    ``logits`` says whether the teacher's logits are read, ``taps`` which of its maps. ``begin`` is the tap at which the
    part of the student that learns begins. ``views`` is the number of augmentations of an image, which recur in turn
    (0: every epoch has a new one, and no output is cached). ``mixing`` mixes the images of each batch before any
    network sees them; then no output is cached either.
    """

    split: Split
    engine: Engine
    teacher: FrozenNetwork | None = None
    logits: bool = False
    taps: Sequence[Tap] = ()
    student: FrozenNetwork | None = None
    begin: Tap | None = None
    views: int = 0
    mixing: Mixing | None = None
    kept_as: str = ""
    """The name of these images in the cache, by default that of the split."""
    whole: bool = True
    """Whether an epoch has every image once; if not, no output is cached."""

    def __len__(self) -> int:
        return len(self.split)

    def view(self, epoch: int) -> int | None:
        """Return the number of an epoch's augmentation, or None where the split has none."""
        if not self.split.augmented:
            return None
        return epoch % self.views if self.views and self.mixing is None else epoch

    def batches(
        self, batch_size: int | Sequence[int], *, order: Tensor | None = None, view: int | None = None
    ) -> Iterator[Batch]:
        """Yield the batches of the images ``order`` (None: all, in their own order) in a view (None: not augmented).

        ``batch_size`` is that of all batches, or a list of the size of each.
        """
        wanted: list[Tap | str] = [*([LOGITS] if self.logits else []), *self.taps]
        keep = self.whole and self.mixing is None and (view is None or self.views > 0)
        name, images = self.kept_as or self.split.name, len(self.split)
        teacher = begun = None
        if self.teacher is not None and wanted:
            teacher = self.teacher.look(wanted, split=name, images=images, view=view, keep=keep)
        if self.student is not None and self.begin is not None:
            begun = self.student.look([self.begin], split=name, images=images, view=view, keep=keep)
        looks = [look for look in (teacher, begun) if look is not None]
        blind = begun is not None and not any(look.needs_images for look in looks)
        indices = torch.arange(len(self)) if order is None else order.cpu()
        for chunk, pixels, target in self._raw(indices, batch_size, view, blind=blind):
            parts = None
            if self.mixing is not None and pixels is not None:
                pixels, parts = self.mixing(pixels, target)
                if self.engine.channels_last:
                    pixels = pixels.contiguous(memory_format=torch.channels_last)
                target = torch.full_like(target, UNLABELLED)
            outputs = teacher(chunk, pixels) if teacher is not None else []
            logits = outputs.pop(0) if teacher is not None and self.logits else torch.empty(0)
            inputs = begun(chunk, pixels)[0] if begun is not None else pixels
            assert inputs is not None
            maps = [rows.float() for rows in outputs]
            yield Batch(chunk, self._laid_out(inputs), target, logits, maps, parts)
        for look in looks:
            look.close()

    def _raw(
        self, indices: Tensor, batch_size: int | Sequence[int], view: int | None, *, blind: bool
    ) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Yield indices, images (None if ``blind``: no network needs them) and labels."""
        device = self.engine.device
        if blind:
            for chunk in indices.split(batch_size if isinstance(batch_size, int) else list(batch_size)):
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


def kept_on(split: Split, device: torch.device, where: str) -> Split:
    """Return a split whose images are kept, and whose views are made, where ``--images-on`` says.

    ``where`` is ``host``, ``device``, or ``auto``: on a CUDA device if they take at most `SHARE` of its free memory,
    and their views are the same there to the bit. The pixels of a view do not depend on where it is made. Where the
    device cannot hold the images they stay on the host; if they were asked for there, one line says why.
    """
    if where == "host" or (where == "auto" and device.type != "cuda"):
        return split
    try:
        there, needed = split.on(device)
    except HostOnlyError as error:
        return _on_host(split, device, where, str(error))
    free = free_memory(device)
    if needed and free is None:
        return _on_host(split, device, where, f"the free memory of {device.type} is not known")
    if needed and free is not None and needed > (SHARE if where == "auto" else 1.0) * free:
        room = f"{shown_bytes(needed)}, and {shown_bytes(free)} of {device} are free"
        return _on_host(split, device, where, f"those of {split.name} take {room}")
    try:
        there.prepare()
    except torch.OutOfMemoryError as error:
        return _on_host(split, device, where, first_line(error))
    if where == "auto":
        say_once(f"keeps the images on {device} (--images-on host: in the memory of the host)")
    return there


def _on_host(split: Split, device: torch.device, where: str, reason: str) -> Split:
    """Return the split as it is, and say why if the images were asked for on a device that is not the host."""
    if where == "device" and device.type != "cpu":
        say_once(f"--images-on device: {reason}; they stay on the host")
    return split
