"""Logit standardization in knowledge distillation (Sun, Ren, Li, Wang and Cao, 2024, arXiv:2403.01427)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


class LogitStd(LossDistiller):
    """Match the teacher's softened probabilities after both logits are standardized (Sun et al., 2024).

    With Z(z) = (z - mean(z)) / std(z) over the classes of an image, and p(z) = softmax(Z(z) / T), the loss is a mean
    over the batch, in nats:

    labels * CE + weight * T^2 * KL(p(t) || p(s)).

    std divides by the number of classes, as in the paper's Algorithm 1. The authors' published code divides by the
    number of classes minus 1, which corresponds to T * sqrt((classes - 1) / classes) here.
    """

    fits: ClassVar[str] = (
        "Fits a student that is too small to match the size of its teacher's logits, only their order."
    )

    temperature: float | Schedule = option(2.0, above=0, help="temperature T that softens both standardized outputs")
    weight: float | Schedule = option(9.0, minimum=0, help="weight of the teacher's term")
    labels: float | Schedule = option(0.1, minimum=0, help="weight of the labels' cross-entropy")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        from kdtool_distillers.kd import hinton

        soft = hinton(standardized(step.student), standardized(step.teacher), step.now(self.temperature))
        return step.now(self.labels) * step.cross_entropy() + step.now(self.weight) * soft


def standardized(logits: Tensor) -> Tensor:
    """Return logits [batch, classes] with mean 0 and standard deviation 1 in each row; a constant row becomes 0."""
    from torch.nn import functional as F

    # The authors add 1e-7 to the deviation. 1e-14 inside the root does the same and keeps the gradient finite.
    return F.layer_norm(logits, logits.shape[1:], eps=1e-14)
