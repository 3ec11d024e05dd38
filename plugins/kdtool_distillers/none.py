"""Training without a teacher, the baseline that distillation is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


class Alone(LossDistiller):
    """Train the student on the labels alone, as the baseline of every distillation.

    The loss is weight * the cross-entropy against the labels; the teacher is not run. In a sum of losses it sets the
    weight of the labels.
    """

    also_called: ClassVar[tuple[str, ...]] = ("baseline", "scratch", "labels", "cross-entropy", "ce", "no-teacher")
    fits: ClassVar[str] = "Fits as a baseline: the gain of a distillation is the difference to this."
    logits: ClassVar[bool] = False
    only_labels: ClassVar[bool] = True

    weight: float | Schedule = option(1.0, minimum=0, help="weight of the labels' cross-entropy")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        return step.now(self.weight) * step.cross_entropy()
