"""Variational information distillation (Ahn, Hu, Damianou, Lawrence and Dai, 2019, arXiv:1904.05835)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kdtool import LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Step
    from kdtool.features import Pair


class VID(LossDistiller):
    """Predict the teacher's maps from the student's as normal distributions, to share much information (Ahn et al.,
    2019).

    With f_s and g_s the maps of student and teacher at the end of stage s, the larger one averaged to the size of the
    smaller, m(f_s) three 1x1 convolutions of the teacher's width with ReLU between them, and v_s one learnt variance
    for each of the teacher's channels, the loss is

    CE + weight * sum over stages of mean(((m(f_s) - g_s)^2 / v_s + log v_s) / 2),

    the mean over batch, channels and positions: the negative log-likelihood of g_s but for a constant, in nats. It may
    be negative. v = log(1 + exp(a)) + 1e-5 with a learnt number a for each channel, and v = ``variance`` at first.
    Convolutions and variances are trained with the student and then dropped.

    Weight, first variance and form are those of Tian et al. (arXiv:1910.10699) for CIFAR-100, whose code is the
    authors'. The paper prints the sum over channels and positions.
    """

    fits: ClassVar[str] = "Fits if some of the teacher's channels cannot be imitated: it learns which ones matter."
    logits: ClassVar[bool] = False

    weight: float | Schedule = option(1.0, minimum=0, help="weight of the teacher's term")
    variance: float = option(5.0, above=1e-5, help="variance of each channel at first")
    taps: tuple[str, ...] | None = option(
        None, help="layers to compare, STUDENT=TEACHER or one name for both; unset: the end of each stage but the stem"
    )

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return pairs of the ends of the stages, or of the layers that ``taps`` names."""
        from kdtool.features import match_stages

        return match_stages(student, teacher, self.taps)

    def adapter(self, pair: Pair) -> nn.Module:
        """Return the layers that predict the teacher's map; they are trained with the student and then dropped."""
        from kdtool_distillers.regressors import Normal

        return Normal(pair, self.variance)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        terms = [unlikelihood(predicted, teacher) for predicted, teacher in step.maps]
        return step.cross_entropy() + step.now(self.weight) * torch.stack(terms).sum()


def unlikelihood(predicted: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean of ((mean - teacher)^2 / variance + log variance) / 2, a scalar, in nats.

    ``predicted`` are means, then variances [batch, 2 * channels, height, width], ``teacher`` is a map [batch, channels,
    height, width]; a larger map of the teacher is averaged to the size of the predicted one.
    """
    from torch.nn import functional as F

    mean, variance = predicted.chunk(2, dim=1)
    height, width = mean.shape[2:]
    if teacher.shape[2:] != mean.shape[2:]:
        teacher = F.adaptive_avg_pool2d(teacher, (height, width))
    return ((mean - teacher).square() / variance + variance.log()).mean() / 2
