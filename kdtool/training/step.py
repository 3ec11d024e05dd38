"""One batch as a loss sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from kdtool.data.raw import UNLABELLED
from kdtool.plugins.schedule import Schedule


@dataclass
class Step:
    """One batch as a loss sees it.

    ``student`` and ``teacher`` are logits [batch, classes] in float32 (the teacher's without gradient),
    ``target`` the class indices [batch], ``images`` [batch, channels, height, width]; ``epoch`` counts from 0.
    ``maps`` are pairs of outputs of watched layers, the student's (adapted to the teacher's shape) and the teacher's,
    and ``owners`` whose they are (see `kdtool.features.Pair`); ``auxiliary`` is what other students or exits make that
    learn in the same steps (see `kdtool.training.Auxiliary`). ``unlabelled`` says that images may have no label: they
    are of class `UNLABELLED`.
    """

    student: Tensor
    target: Tensor
    images: Tensor
    teacher: Tensor
    epoch: int = 0
    epochs: int = 1
    label_smoothing: float = 0.0
    maps: Sequence[tuple[Tensor, Tensor]] = ()
    owners: Sequence[str] = ()
    auxiliary: Sequence[Tensor] = ()
    unlabelled: bool = False

    def cross_entropy(self) -> Tensor:
        """Return the cross-entropy against the labels, smoothed as the training options say, meaned over the images
        that have one; 0 where none has."""
        if not self.unlabelled:
            return F.cross_entropy(self.student, self.target, label_smoothing=self.label_smoothing)
        total = F.cross_entropy(
            self.student,
            self.target,
            ignore_index=UNLABELLED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return total / (self.target != UNLABELLED).sum().clamp(min=1)

    def now(self, number: float | Schedule) -> float:
        """Return an option's number in this epoch."""
        return number.at(self.epoch, self.epochs) if isinstance(number, Schedule) else number


@dataclass
class Counted(Step):
    """A batch whose cross-entropy is left open: ``counter``, a scalar, stands in its place."""

    counter: Tensor | None = None

    def cross_entropy(self) -> Tensor:
        """Return the counter."""
        assert self.counter is not None
        return self.counter
