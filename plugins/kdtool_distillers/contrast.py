"""What contrastive representation distillation remembers: embeddings of all images (Tian et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtool import Callback
from kdtool.utils import gathered

if TYPE_CHECKING:
    from kdtool import Step


class Embeddings(nn.Module):
    """Linear embeddings of the features of student and teacher, whose weights the loss applies itself."""

    def __init__(self, channels: Sequence[int], size: int) -> None:
        """Embed features of ``channels`` of both networks in ``size`` numbers."""
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(count, size) for count in channels)

    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Return weight and bias of the student's embedding, then those of the teacher's."""
        return [tensor for layer in self.layers for tensor in layer.parameters()]


class Memory(Callback):
    """Two banks with an embedding of each image of the train split, by the student and by the teacher.

    Each row has the norm 1, but for the random ones of the first epoch. The embeddings of a batch are added after its
    step, so that the loss compares it with earlier ones. When the last epoch is over, the banks are dropped.
    """

    def __init__(self, labels: Tensor, *, size: int, momentum: float) -> None:
        """Remember ``size`` numbers for each image; ``labels`` are its classes [images]. The banks are random."""
        self.momentum = momentum
        self.bound = math.sqrt(3 / size)
        self.banks = [self._random(len(labels), size) for _ in range(2)]
        self.scales: list[float | None] = [None, None]
        """What the scores of student and teacher are divided by; from the first batch on they stay the same."""
        self.order = labels.argsort(stable=True)
        sizes = labels.bincount()
        self.sizes, self.starts = sizes, sizes.cumsum(0) - sizes
        self.epochs, self.pending = 0, list[list[Tensor]]()
        self.device = torch.device("cpu")

    def _random(self, images: int, size: int) -> Tensor:
        return (2 * torch.rand(images, size) - 1) * self.bound

    def negatives(self, target: Tensor, count: int) -> Tensor:
        """Return for each image ``count`` random images of other classes, with repetitions, int64 [batch, count].

        ``target`` holds the classes of the images [batch].
        """
        order, starts, sizes = (tensor.to(target.device) for tensor in (self.order, self.starts, self.sizes))
        own = sizes[target][:, None]
        drawn = torch.rand(len(target), count, device=target.device)
        # Images are sorted by class: those of the own class are a gap, which higher numbers step over.
        numbers = (drawn * (len(order) - own)).long().clamp(max=len(order) - 1 - own)
        return order[numbers + own * (numbers >= starts[target][:, None])]

    def scores(self, embeddings: Sequence[Tensor], indices: Tensor, temperature: float) -> list[Tensor]:
        """Return exp(e . m / temperature) / Z of each image with ``indices`` [batch, images], one for each network.

        e are its embeddings [batch, size] by the student, and m those that the teacher's bank has, and the reverse. Z
        is set so that the scores of the first batch are 1 / images of the bank on average.
        """
        scores = []
        for number, (own, bank) in enumerate(zip(embeddings, reversed(self.banks), strict=True)):
            # All products, of which some are taken: less memory than the taken rows of the bank.
            raw = (own @ bank.to(own).t()).gather(1, indices).div(temperature).exp()
            scale = self.scales[number]
            if scale is None:
                first = float(gathered(raw.detach().mean()[None]).mean())
                scale = self.scales[number] = first * len(bank)
            scores.append(raw / scale)
        self.pending.append([own.detach() for own in embeddings])
        return scores

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Move the banks to the device of the student."""
        self.epochs, self.device = epochs, next(module.parameters()).device
        self.banks = [bank.to(self.device) for bank in self.banks]

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Move the embeddings of the images of the step towards what they are now."""
        assert step.indices is not None
        rows = step.indices.to(self.device)
        for bank, parts in zip(self.banks, zip(*self.pending, strict=True), strict=True):
            own = gathered(torch.cat(parts))
            bank[rows] = F.normalize(self.momentum * bank[rows] + (1 - self.momentum) * own.to(bank), dim=1)
        self.pending = []

    def after_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Drop the banks after the last epoch."""
        if epoch >= self.epochs:
            self.banks = []
        return {}

    def state(self) -> dict[str, Any]:
        """Return the banks and the scales."""
        return {"banks": self.banks, "scales": self.scales}

    def load(self, state: dict[str, Any]) -> None:
        """Take over the banks and the scales."""
        self.banks = [bank.to(self.device) for bank in state["banks"]]
        self.scales = state["scales"]
