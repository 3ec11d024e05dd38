"""Decoupled knowledge distillation (Zhao, Cui, Song, Qiu and Liang, 2022, arXiv:2203.08679)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Error, Schedule, option
from kdtool_distillers.warm_up import WarmUp

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Step


class DKD(WarmUp):
    """Match the teacher's probability of the right class and its ranking of the others separately (Zhao et al., 2022).

    With p(z) = softmax(z / T) over all classes, b(z) = (p_y, 1 - p_y) for the right class y, and q(z) the softmax of
    z / T over all classes except y, the loss is a mean over the batch, in nats:

    CE + w * T^2 * (alpha * KL(b(t) || b(s)) + beta * KL(q(t) || q(s))), where w = min(epoch / warm-up, 1) and
    epochs count from 1. The warm-up is the authors' 20 epochs, but at most half of the phase, so that a short training
    reaches the full weights too; ``--teacher-warmup 20`` gives their number in any training.

    The defaults are the authors' for ResNet-32x4 to 8x4 on CIFAR-100, with 240 epochs. Their beta depends on the pair;
    it is larger for a more confident teacher: 2 for ResNet-56 to 20 and ResNet-110 to 32, 6 for VGG-13 to 8 and
    WRN-40-2 to 16-2, 8 for ResNet-32x4 to 8x4. On ImageNet they use T = 1 and a warm-up of 1, with beta = 0.5 for
    ResNet-34 to 18 and 2 for ResNet-50 to MobileNet.
    """

    also_called: ClassVar[tuple[str, ...]] = ("decoupled",)
    fits: ClassVar[str] = (
        "Fits a teacher that is nearly always confident, and many classes; needs the labels of all images."
    )

    weight_options: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    temperature: float | Schedule = option(4.0, above=0, help="temperature T that softens both outputs")
    alpha: float | Schedule = option(1.0, minimum=0, help="weight of the term for the right class against all others")
    beta: float | Schedule = option(8.0, minimum=0, help="weight of the term for the other classes among each other")

    def needs_labels(self) -> bool:
        """Return True: the loss needs the right class of every image."""
        return True

    def check(self, student: Network, teacher: Network) -> None:
        """Check that there are at least three classes.

        Raises:
            Error: there are fewer; the ranking of the other classes has no meaning.
        """
        if student.architecture.classes < 3:
            raise Error(
                f"dkd compares the wrong classes with each other, and of {student.architecture.classes} classes at "
                "most one is wrong; use --method kd"
            )

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        right, others = decoupled(step.student, step.teacher, step.target, step.now(self.temperature))
        return step.cross_entropy() + self.warm(step) * (step.now(self.alpha) * right + step.now(self.beta) * others)


def decoupled(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return T^2 KL(b(teacher) || b(student)) and T^2 KL(q(teacher) || q(student)), means over the batch, in nats.

    ``student`` and ``teacher`` are logits [batch, classes], ``target`` holds the right classes [batch].
    """
    from kdtool_distillers.kd import divergence

    student_right, student_others = split(student / temperature, target)
    teacher_right, teacher_others = split(teacher / temperature, target)
    right, others = divergence(student_right, teacher_right), divergence(student_others, teacher_others)
    return temperature**2 * right, temperature**2 * others


def split(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of the right class against all others [batch, 2], and those of the others [batch, classes - 1].

    The logit of all others together is the log-sum-exp of their logits.
    """
    import torch

    numbers = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = logits.gather(1, numbers + (numbers >= target[:, None]).long())
    right = logits.gather(1, target[:, None])
    return torch.cat([right, others.logsumexp(dim=1, keepdim=True)], dim=1), others
