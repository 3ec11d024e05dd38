"""What is held while a network learns: the zeros of a pruned one, and at the end the ranges of one that rounds.

A range that follows the values of batches trembles with them, and sees those of batch-norms that use the statistics of
the batch. So a network that rounds learns the last part of its training as it will be used: with fixed ranges, and with
the running statistics of its batch-norms, which Krishnamoorthi (2018, arXiv:1806.08342) freezes at the end too.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from kdtool.data.splits import Split
from kdtool.models.quantisation.fake import Quantiser, calibrate, quantiser_of
from kdtool.training.callback import Callback
from kdtool.training.zeros import HoldZeros

if TYPE_CHECKING:
    from kdtool.data.splits import Data
    from kdtool.models.architecture import Network
    from kdtool.models.checkpoint import Checkpoint
    from kdtool.training.student import Auxiliary

IMAGES, BATCH = 256, 64
"""How many training images set ranges, and how many run at once."""

LAST = 4
"""The part of the epochs in which the ranges are fixed: one in so many, but at least one; none if there is one only."""


_fresh: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def fresh(network: Network) -> Network:
    """Mark the module of a network whose weights are fresh: its zeros are those of an initialisation, not of a mask."""
    _fresh.add(network.module)
    return network


def is_fresh(module: nn.Module) -> bool:
    """Return whether a module was marked by `fresh`, or is a trained copy of one that was."""
    return module in _fresh


def duplicate(module: nn.Module) -> nn.Module:
    """Return a copy, with the same mark."""
    made = copy.deepcopy(module)
    if is_fresh(module):
        _fresh.add(made)
    return made


def holding(module: nn.Module, data: Data | None, *, masked: bool) -> list[Callback]:
    """Return the callbacks of a phase: for the zeros of a pruned network, and for one that rounds."""
    rounds = data is not None and quantiser_of(module) is not None
    return [
        *([HoldZeros()] if masked and not is_fresh(module) else []),
        *([HoldRanges(data.train)] if rounds and data is not None else []),
    ]


def holding_pruned(teachers: Sequence[Checkpoint], auxiliary: Auxiliary | None, trained: Auxiliary) -> list[Callback]:
    """Return the callbacks that hold the zeros of pruned teachers that learn with a student.

    ``trained`` is the copy of ``auxiliary`` that learns; the teachers among its parts are found by their modules.
    """
    pruned = {id(teacher.module) for teacher in teachers if teacher.masked}
    parts = [] if auxiliary is None else auxiliary.module.named_modules()
    return [HoldZeros(trained.module.get_submodule(path)) for path, part in parts if id(part) in pruned]


def plain_images(split: Split) -> Iterator[Tensor]:
    """Yield batches of plain images [batch, channels, size, size], 256 in all, from the whole split."""
    count = min(IMAGES, len(split))
    order = torch.arange(count) * len(split) // count
    return (images for _, images, _ in split.batches(BATCH, order=order))


class HoldRanges(Callback):
    """Find the ranges anew before the last quarter of the epochs, and hold them and the batch-norms from then on."""

    reads_step: ClassVar[bool] = False

    def __init__(self, split: Split) -> None:
        """Take the images from ``split``."""
        self.split = split
        self.quantiser: Quantiser | None = None
        self.last: int | None = None

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Let the ranges follow at first."""
        self.quantiser = quantiser_of(module)
        assert self.quantiser is not None
        self.quantiser.held = False
        self.last = epochs - max(1, epochs // LAST) if epochs > 1 else None

    def after_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Find the ranges, if this epoch is the last before they are held."""
        if epoch == self.last and self.quantiser is not None:
            device = next((weight.device for weight in module.parameters()), torch.device("cpu"))
            calibrate(module, (images.to(device) for images in plain_images(self.split)))
            self.quantiser.held = True
        return {}

    def state(self) -> dict[str, Any]:
        """Return whether the ranges are held."""
        return {"held": self.quantiser is not None and self.quantiser.held}

    def load(self, state: dict[str, Any]) -> None:
        """Hold the ranges if they were held."""
        if self.quantiser is not None:
            self.quantiser.held = state["held"]
