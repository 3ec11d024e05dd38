"""The frozen teacher: its logits are computed once per image and view, and read back from disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kdtool.engine import Engine

# Past this the teacher runs in every step: the disk is the user's.
LIMIT_BYTES = 8 << 30


class FrozenTeacher:
    """A teacher in eval mode, without gradients, with a cache of its logits in the run directory.

    The cache holds float32 logits [images, classes] for each view, keyed by the teacher's fingerprint, so that
    all phases with the same teacher share it. A view is filled batch by batch while it is used for the first
    time and becomes readable only when it is whole.
    """

    def __init__(
        self, module: nn.Module, key: str, directory: Path, engine: Engine, *, images: int, classes: int, views: int
    ) -> None:
        """Freeze ``module``; ``views`` of 0 switches the cache off."""
        self.module = engine.place(module).eval().requires_grad_(False)
        self.key, self.directory, self.engine = key, directory, engine
        self.images, self.classes = images, classes
        self.caching = views > 0 and 4 * images * classes * views <= LIMIT_BYTES

    def epoch(self, view: int | None) -> EpochLogits:
        """Return the teacher's logits for one epoch, to be called with each batch."""
        return EpochLogits(self, view)

    def compute(self, images: Tensor) -> Tensor:
        """Run the teacher; returns float32 logits [batch, classes]."""
        with torch.no_grad(), self.engine.autocast():
            logits: Tensor = self.module(images)
        return logits.float()


class EpochLogits:
    """The logits of one view: read where the view is whole, else computed and written."""

    def __init__(self, teacher: FrozenTeacher, view: int | None) -> None:
        """Open the view's file, or begin it."""
        self.teacher = teacher
        self.path = teacher.directory / f"{teacher.key}-{'plain' if view is None else view}.npy"
        self.partial = self.path.with_suffix(".part")
        self.ready: Tensor | None = None
        self.filling: np.memmap | None = None
        if not teacher.caching:
            return
        if self.path.exists():
            # Copy-on-write: torch wants a writable array, and the file must stay as it is.
            self.ready = torch.from_numpy(np.load(self.path, mmap_mode="c"))
        else:
            teacher.directory.mkdir(parents=True, exist_ok=True)
            self.filling = np.lib.format.open_memmap(
                self.partial, mode="w+", dtype=np.float32, shape=(teacher.images, teacher.classes)
            )

    def __call__(self, indices: Tensor, images: Tensor) -> Tensor:
        """Return the logits of a batch, float32 [batch, classes] on the engine's device."""
        if self.ready is not None:
            return self.ready[indices.cpu()].to(self.teacher.engine.device)
        logits = self.teacher.compute(images)
        if self.filling is not None:
            self.filling[indices.cpu().numpy()] = logits.cpu().numpy()
        return logits

    def close(self) -> None:
        """Make a view that was filled readable; call it only after every image was seen."""
        if self.filling is not None:
            self.filling.flush()
            del self.filling
            os.replace(self.partial, self.path)
