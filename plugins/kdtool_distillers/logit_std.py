"""Logit standardization in knowledge distillation (Sun, Ren, Li, Wang and Cao, 2024, arXiv:2403.01427)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Error, LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Step


class LogitStd(LossDistiller):
    """Match the teacher's softened probabilities after both logits are standardized (Sun et al., 2024).

    With Z(z) = (z - mean(z)) / (std(z) + 1e-7) over the classes of an image, and p(z) = softmax(Z(z) / T), the loss is
    a mean over the batch, in nats:

    labels * CE + weight * T^2 * KL(p(t) || p(s)).

    std is the root of the sum of squares divided by c - 1 (``unbiased``), as in the authors' published code, or by the
    number of classes c (``biased``), as in the paper's Algorithm 1. With r = c / (c - 1), the unbiased form with T and
    ``weight`` is the biased form with T * sqrt(r) and ``weight`` / r. The defaults are those of the authors' code.
    """

    also_called: ClassVar[tuple[str, ...]] = ("logit-standardization", "standardized")
    fits: ClassVar[str] = (
        "Fits a student that is too small to match the size of its teacher's logits, only their order."
    )

    temperature: float | Schedule = option(2.0, above=0, help="temperature T that softens both standardized outputs")
    weight: float | Schedule = option(9.0, minimum=0, help="weight of the teacher's term")
    labels: float | Schedule = option(0.1, minimum=0, help="weight of the labels' cross-entropy")
    deviation: str = option(
        "unbiased",
        choices=("unbiased", "biased"),
        help="standard deviation: unbiased as in the authors' code, biased as in the paper",
    )

    def check(self, student: Network, teacher: Network) -> None:
        """Check that there are at least two classes.

        Raises:
            Error: there is one; a single number has no deviation.
        """
        if student.architecture.classes < 2:
            raise Error("logit-std divides by the deviation of the logits of an image, and 1 class has none")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        from kdtool_distillers.kd import hinton

        unbiased = self.deviation == "unbiased"
        student, teacher = (standardized(logits, unbiased=unbiased) for logits in (step.student, step.teacher))
        soft = hinton(student, teacher, step.now(self.temperature))
        return step.now(self.labels) * step.cross_entropy() + step.now(self.weight) * soft


def standardized(logits: Tensor, *, unbiased: bool = True) -> Tensor:
    """Return (z - mean) / (std + 1e-7) of each row of logits [batch, classes]; a constant row becomes 0.

    std is the root of the sum of squares divided by classes - 1 (``unbiased``) or by classes.
    """
    import torch

    centred = logits - logits.mean(dim=1, keepdim=True)
    variance = logits.var(dim=1, keepdim=True, correction=int(unbiased))
    # The gradient of a root at 0 is infinite.
    deviation = torch.where(variance > 0, torch.where(variance > 0, variance, 1).sqrt(), 0)
    return centred / (deviation + 1e-7)
