"""Distillation from a stronger teacher (Huang, You, Wang, Qian and Xu, 2022, arXiv:2205.10536)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Schedule, option
from kdtool_distillers.warm_up import WarmUp

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


class DIST(WarmUp):
    """Correlate with the teacher's probabilities, in each image and in each class (Huang et al., 2022).

    With p(z) = softmax(z / T) [batch, classes], s and t the logits of student and teacher, and rho Pearson's
    correlation, the loss is

    CE + w * T^2 * (beta * mean over images of (1 - rho(p(s), p(t))) + gamma * mean over classes of the same),

    where w = min(epoch / warm-up, 1) and epochs count from 1. The authors have no warm-up (``--teacher-warmup 0``), and
    train for 240 epochs. The gradient of rho is large for the small logits of a fresh student, and in a short training
    it spoils the first epochs.

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
        taught = step.now(self.beta) * images + step.now(self.gamma) * classes
        return step.cross_entropy() + self.warm(step) * taught


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
