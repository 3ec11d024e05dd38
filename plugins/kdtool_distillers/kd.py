"""Knowledge distillation (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531), and its form in the IKD paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


class KD(LossDistiller):
    """Match the teacher's softened class probabilities (Hinton et al., 2015).

    With student logits s and teacher logits t [batch, classes], p(z) = softmax(z / T) and the labels' cross-entropy
    CE, the loss is a mean over the batch, in nats:

    - ``hinton``: (1 - alpha) * CE + alpha * T^2 * KL(p(t) || p(s))
    - ``ikd``: (1 - alpha) * CE + alpha * 2 * T^2 * KL(p(s) || p(t)), as printed in Yalburgi et al., Eq. 1, where
      log(1 - y) in the cross-entropy is read as log y.
    """

    also_called: ClassVar[tuple[str, ...]] = (
        "hinton",
        "soft",
        "soft-targets",
        "soft-labels",
        "vanilla",
        "response",
        "logits",
        "kl",
    )
    fits: ClassVar[str] = "Fits any two networks with the same classes; try it first. --alpha 1 needs no labels."
    weight_option: ClassVar[str] = "alpha"
    weight_options: ClassVar[tuple[str, ...]] = ("alpha", "temperature")

    temperature: float | Schedule = option(4.0, above=0, help="temperature T that softens both outputs")
    alpha: float | Schedule = option(
        0.9, minimum=0, maximum=1, help="weight of the teacher's term; the labels' weight is 1 - alpha"
    )
    equation: str = option(
        "hinton", choices=("hinton", "ikd"), help="form of the loss: Hinton's, or that of the IKD paper"
    )

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        soft, alpha = hinton if self.equation == "hinton" else ikd_paper, step.now(self.alpha)
        hard = (1 - alpha) * step.cross_entropy() if alpha < 1 else 0.0
        return hard + alpha * soft(step.student, step.teacher, step.now(self.temperature))


def hinton(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(teacher || student), summed over classes, a mean over the batch, in nats.

    ``student`` and ``teacher`` are logits [batch, classes]. T^2 keeps the gradient as large as it is at T = 1.
    """
    return temperature**2 * divergence(student / temperature, teacher / temperature)


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher || student) of logits [batch, classes], summed over classes, a mean over the batch, in nats."""
    from torch.nn import functional as F

    return F.kl_div(
        F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1), reduction="batchmean", log_target=True
    )


def ikd_paper(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return 2 * T^2 * KL(student || teacher), summed over classes, a mean over the batch, in nats."""
    return 2 * hinton(teacher, student, temperature)
