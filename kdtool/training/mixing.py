"""Mixtures of the images of a batch and of their labels: mixup and CutMix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdtool.data.raw import UNLABELLED
from kdtool.training.options import Training


class Mixing:
    """Mix each image of a batch with the one before it.

    Mixup (Zhang et al., 2018, arXiv:1710.09412): x = m x_i + (1 - m) x_j, and the same for the labels, with one m of
    Beta(alpha, alpha) for each batch. CutMix (Yun et al., 2019, arXiv:1905.04899): a rectangle of x_j replaces that of
    x_i, and m is the part of x_i that is left. With both, every step takes one of them by the toss of a coin. Both are
    those of ``torchvision.transforms.v2``. torch's global random numbers decide.
    """

    def __init__(self, mixup: float, cutmix: float, classes: int) -> None:
        """Mix with the alphas ``mixup`` and ``cutmix``; 0 switches one off."""
        from torchvision.transforms import v2

        self.classes = classes
        self.kinds: list[Any] = [v2.MixUp(alpha=mixup)] if mixup else []
        self.kinds += [v2.CutMix(alpha=cutmix)] if cutmix else []

    def __call__(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixed images [batch, channels, height, width] and the parts of their labels [batch, classes].

        ``target`` [batch] are class indices. The parts of an image add up to 1, to less if an image without a label is
        in it.
        """
        labelled = target != UNLABELLED
        parts = F.one_hot(target.where(labelled, 0), self.classes) * labelled.unsqueeze(1)
        kind = self.kinds[int(torch.randint(len(self.kinds), ()))] if len(self.kinds) > 1 else self.kinds[0]
        mixed: tuple[Tensor, Tensor] = kind(images, parts.float())
        return mixed


def mixing_of(training: Training, classes: int) -> Mixing | None:
    """Return what mixes the batches of a training, or None if nothing does."""
    return Mixing(training.mixup, training.cutmix, classes) if training.mixes else None
