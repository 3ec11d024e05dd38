"""Cross-view consistency regularisation (Zhang, Liu, Cai and Ma, ACM MM 2024, arXiv:2412.16493)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


class CRLD(LossDistiller):
    """Match the teacher within a weak and a strong view of each image, and across the two (Zhang et al., 2024).

    With logits s_w, s_s of the student and t_w, t_s of the teacher [batch, classes] on the weak view (the training's
    own augmentation, ``--augment``) and the strong one (the same crops and mirrors, then RandAugment), the loss is

    labels * (CE(s_w) + CE(s_s)) + within * mean(m_w * (K(t_w, s_w) + K(t_s, s_s)))
    + across * mean(m_s * (K(t_w, s_s) + K(t_s, s_w))),

    where K(t, s) = T^2 * KL(softmax(t / T) || softmax(s / T)) of one image in nats, m_w is 1 where the teacher's
    largest probability (at a temperature of 1) on the weak view is at least ``confidence_weak`` and else 0, and m_s the
    same on the strong view with ``confidence_strong``. The masks are those of the authors' code, where m_s and not a
    mask of the view that teaches weighs both terms across. The student sees both views in one batch, which batch-norms
    take as a whole; in that code each view is a batch of its own. Every step costs two of `kd`.

    The defaults are a plain choice. Two public repositories of others have this loss (haiduo/DeepKD and
    scx-822/CRLD-main on GitHub), both with T = 4 and ``--within 2 --across 0.5 --confidence-weak 0.9
    --confidence-strong 0.2``, and train for 240 epochs on CIFAR-100; for ImageNet the second one has ``--labels 2``
    and T = 1. That these are the authors' values is likely and was not verified.
    """

    fits: ClassVar[str] = "Fits long trainings, if kd helps; every step runs both networks on two views of each image."
    two_views: ClassVar[bool] = True
    weight_option: ClassVar[str] = "within"

    temperature: float | Schedule = option(4.0, above=0, help="temperature T that softens both outputs")
    within: float | Schedule = option(1.0, minimum=0, help="weight of the terms within a view")
    across: float | Schedule = option(1.0, minimum=0, help="weight of the terms between the two views")
    labels: float | Schedule = option(1.0, minimum=0, help="weight of the labels' cross-entropy of each view")
    confidence_weak: float = option(
        0.5, minimum=0, maximum=1, help="least probability of the teacher's class on the weak view"
    )
    confidence_strong: float = option(
        0.5, minimum=0, maximum=1, help="least probability of the teacher's class on the strong view"
    )

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch, whose first half are the weak views and whose second half the strong ones."""
        temperature = step.now(self.temperature)
        within, across = consistency(
            step.student, step.teacher, temperature, self.confidence_weak, self.confidence_strong
        )
        # The mean over both halves is half of the sum of their means.
        labels = 2 * step.now(self.labels) * step.cross_entropy()
        return labels + step.now(self.within) * within + step.now(self.across) * across


def consistency(
    student: Tensor, teacher: Tensor, temperature: float, confidence_weak: float, confidence_strong: float
) -> tuple[Tensor, Tensor]:
    """Return the terms within the views and across them, scalars in nats.

    ``student`` and ``teacher`` are logits [2 * batch, classes]: of the weak views, then of the strong ones.
    """
    weak, strong = teacher.chunk(2)
    sure_weak = weak.softmax(1).amax(1) >= confidence_weak
    sure_strong = strong.softmax(1).amax(1) >= confidence_strong
    ours_weak, ours_strong = student.chunk(2)
    within = _divergence(ours_weak, weak, temperature) + _divergence(ours_strong, strong, temperature)
    across = _divergence(ours_strong, weak, temperature) + _divergence(ours_weak, strong, temperature)
    return (within * sure_weak).mean(), (across * sure_strong).mean()


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)) of each image in nats, [batch]."""
    from torch.nn import functional as F

    ours, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(ours, theirs, log_target=True, reduction="none").sum(1)
