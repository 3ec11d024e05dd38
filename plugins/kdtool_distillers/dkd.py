"""Decoupled knowledge distillation (Zhao, Cui, Song, Qiu and Liang, 2022, arXiv:2203.08679)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Error, LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Step


class DKD(LossDistiller):
    """Match apart how sure the teacher is of the right class, and how it ranks the others (Zhao et al., 2022).

    With p(z) = softmax(z / T) over all classes, b(z) = (p_y, 1 - p_y) for the right class y, and q(z) the softmax of
    z / T over the classes but y, the loss is a mean over the batch, in nats:

    CE + w * T^2 * (alpha * KL(b(t) || b(s)) + beta * KL(q(t) || q(s))), w = min(epoch / warmup, 1), the first epoch
    being 1.

    The defaults are the authors' for ResNet-32x4 and 8x4 on CIFAR-100, of 240 epochs; a larger beta fits a surer
    teacher (there 2 to 8; on ImageNet T = 1, beta = 0.5 and a warm-up of 1).
    """

    fits: ClassVar[str] = "Fits a teacher that is nearly always sure, and many classes; needs the labels of all images."

    temperature: float | Schedule = option(4.0, above=0, help="temperature T that softens both outputs")
    alpha: float | Schedule = option(1.0, minimum=0, help="weight of the right class against all others")
    beta: float | Schedule = option(8.0, minimum=0, help="weight of the other classes among each other")
    warmup: int = option(20, minimum=0, help="epochs in which the teacher's terms grow to their weights")

    def needs_labels(self) -> bool:
        """Say that the right class has to be known."""
        return True

    def check(self, student: Network, teacher: Network) -> None:
        """Refuse fewer than three classes."""
        if student.architecture.classes < 3:
            raise Error(
                f"dkd compares the classes that are not the right one, and of {student.architecture.classes} there is "
                "at most one; use --method kd"
            )

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        right, others = decoupled(step.student, step.teacher, step.target, step.now(self.temperature))
        grown = min((step.epoch + 1) / self.warmup, 1.0) if self.warmup else 1.0
        return step.cross_entropy() + grown * (step.now(self.alpha) * right + step.now(self.beta) * others)


def decoupled(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return T^2 KL(b(teacher) || b(student)) and T^2 KL(q(teacher) || q(student)), meaned over the batch, in nats.

    ``student`` and ``teacher`` are logits [batch, classes], ``target`` the right classes [batch].
    """
    from kdtool_distillers.kd import divergence

    ours, theirs = split(student / temperature, target), split(teacher / temperature, target)
    right, others = (divergence(*both) for both in zip(ours, theirs, strict=True))
    return temperature**2 * right, temperature**2 * others


def split(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of the right class against all others [batch, 2], and those of the others [batch, classes - 1].

    All others together have the log-sum-exp of their logits as logit.
    """
    import torch

    numbers = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = logits.gather(1, numbers + (numbers >= target[:, None]).long())
    right = logits.gather(1, target[:, None])
    return torch.cat([right, others.logsumexp(dim=1, keepdim=True)], dim=1), others
