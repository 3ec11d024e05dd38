"""One batch as a loss sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass
class Step:
    """One batch as a loss sees it.

    ``student`` and ``teacher`` are logits [batch, classes] in float32 (the teacher's without gradient),
    ``target`` the class indices [batch], ``images`` [batch, channels, height, width]; ``epoch`` counts from 0.
    ``maps`` are pairs of outputs of watched layers, the student's (adapted to the teacher's shape) and the teacher's;
    ``beside`` is what other students or exits make that learn in the same steps (see `kdtool.Beside`).
    """

    student: Tensor
    target: Tensor
    images: Tensor
    teacher: Tensor
    epoch: int = 0
    epochs: int = 1
    label_smoothing: float = 0.0
    maps: Sequence[tuple[Tensor, Tensor]] = ()
    beside: Sequence[Tensor] = ()

    def cross_entropy(self) -> Tensor:
        """Return the mean cross-entropy against the labels, smoothed as the training options say."""
        return F.cross_entropy(self.student, self.target, label_smoothing=self.label_smoothing)
