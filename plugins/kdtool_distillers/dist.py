"""Distillation from a stronger teacher (Huang, You, Wang, Qian and Xu, 2022, arXiv:2205.10536)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


class DIST(LossDistiller):
    """Correlate with the teacher's probabilities, in each image and in each class (Huang et al., 2022).

    With p(z) = softmax(z / T) [batch, classes], s and t the logits of student and teacher, and rho Pearson's
    correlation, the loss is

    CE + beta * T^2 * mean over images of (1 - rho(p(s), p(t))) + gamma * T^2 * mean over classes of the same.

    Correlation does not prescribe how confident the student is; a small student cannot reach the confidence of a much
    larger teacher. The defaults are the authors' for CIFAR-100; on ImageNet they use T = 1. Their code adds 1e-8 to the
    product of the two norms in rho; here no norm is less than 1e-8.
    """

    fits: ClassVar[str] = (
        "Fits a teacher that is much stronger than the student and too confident to be matched exactly."
    )

    weight_options: ClassVar[tuple[str, ...]] = ("beta", "gamma")

    temperature: float | Schedule = option(4.0, above=0, help="temperature T that softens both outputs (ImageNet: 1)")
    beta: float | Schedule = option(2.0, minimum=0, help="weight of the correlation over the classes of each image")
    gamma: float | Schedule = option(2.0, minimum=0, help="weight of the correlation over the images of each class")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        images, classes = uncorrelated(step.student, step.teacher, step.now(self.temperature))
        return step.cross_entropy() + step.now(self.beta) * images + step.now(self.gamma) * classes


def uncorrelated(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return T^2 (1 - rho) of the softened probabilities, once as the mean over images, once as the mean over classes.

    ``student`` and ``teacher`` are logits [batch, classes]. A constant row or column has a correlation of 0.
    """
    student, teacher = (logits.div(temperature).softmax(dim=1) for logits in (student, teacher))
    return tuple(temperature**2 * (1 - pearson(student, teacher, dim)).mean() for dim in (1, 0))  # type: ignore[return-value]


def pearson(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Return Pearson's correlation of two matrices of the same shape along ``dim``, a vector."""
    from torch.nn import functional as F

    first, second = (matrix - matrix.mean(dim=dim, keepdim=True) for matrix in (first, second))
    return F.cosine_similarity(first, second, dim=dim)
