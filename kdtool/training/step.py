"""The batch that a loss is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdtool.data.raw import UNLABELLED
from kdtool.plugins.schedule import Schedule


@dataclass
class Step:
    """One batch as a loss sees it.

    ``student`` and ``teacher`` are logits [batch, classes] in float32, the teacher's without gradient. ``target`` are
    class indices [batch], ``images`` [batch, channels, height, width]. ``epoch`` counts from 0. ``maps`` are pairs of
    outputs of watched layers: the student's, adapted to the teacher's shape, and the teacher's; ``owners`` are the
    owners of these pairs (see `kdtool.features.Pair`). ``auxiliary`` are the outputs of the auxiliary networks (see
    `kdtool.training.Auxiliary`). ``unlabelled`` says that some images may have no label: their class is `UNLABELLED`.
    ``classifier`` are the weights [classes, features] of the teacher's linear classifier, for objectives that need it
    (see `Objective.needs_classifier`); None where it has none. ``indices`` [batch] are the places of the images in
    their split, on the CPU; None where a batch comes from no split. ``parts`` [batch, classes] are the parts of the
    classes in images that are mixtures, None where they are not; ``target`` is then `UNLABELLED` everywhere, since no
    mixture has one label. ``known`` is which part of the images of the whole step has a label, where several processes
    or passes share a step and some images have none; None: that of this batch. ``class_weights`` [classes] weigh the
    images of each class in the cross-entropy; None: equally.
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
    classifier: Tensor | None = None
    indices: Tensor | None = None
    parts: Tensor | None = None
    known: float | None = None
    class_weights: Tensor | None = None

    def cross_entropy(self) -> Tensor:
        """Return the cross-entropy against the labels in nats, a scalar, with the training's label smoothing.

        It is the mean over the images that have a label, and 0 where none has one; of a share of a step it is the part
        whose weighted mean over all shares is the mean over the step. Of mixtures it is
        -sum_c p_c log q_c with the parts p. With weights of the classes, w_c is a factor of every term of a class c;
        the sum is still divided by the number of images, so that it does not depend on how a step is shared.
        """
        if self.parts is not None:
            known = self.parts.sum(1, keepdim=True)
            smooth = self.label_smoothing
            parts = (1 - smooth) * self.parts + smooth * known / self.parts.shape[1]
            terms = parts * F.log_softmax(self.student, dim=1)
            total = -(terms if self.class_weights is None else terms * self.class_weights).sum()
            if self.known is not None:  # images are mixed within a pass, so the parts of a step add up to its labels
                return total / (self.known * len(self.parts) or 1.0)
            return total / known.sum().clamp(min=torch.finfo(known.dtype).tiny)
        if not self.unlabelled and self.class_weights is None:
            return F.cross_entropy(self.student, self.target, label_smoothing=self.label_smoothing)
        total = F.cross_entropy(
            self.student,
            self.target,
            ignore_index=UNLABELLED,
            weight=self.class_weights,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        if self.known is not None:
            return total / (self.known * len(self.target) or 1.0)
        return total / (self.target != UNLABELLED).sum().clamp(min=1)

    def now(self, number: float | Schedule) -> float:
        """Return the value of an option in this epoch."""
        return number.at(self.epoch, self.epochs) if isinstance(number, Schedule) else number


@dataclass
class Counted(Step):
    """A batch whose cross-entropy is replaced by ``counter``, a scalar tensor, to find its weight in a loss."""

    counter: Tensor | None = None

    def cross_entropy(self) -> Tensor:
        """Return the counter."""
        assert self.counter is not None
        return self.counter
