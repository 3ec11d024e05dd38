"""All stages and the head at once: the baseline of stagewise distillation (Kulkarni et al., 2021, arXiv:1911.06786)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kdtool import LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Step
    from kdtool.features import Pair


class Simultaneous(LossDistiller):
    """Match the teacher's maps at all stages while learning the classes (baseline of Kulkarni et al., 2021).

    With f_s and g_s the maps of student and teacher at the end of stage s, the loss is
    cross-entropy + weight * sum over s of mean((f_s - g_s)^2), the mean over batch, channels and positions.
    """

    fits: ClassVar[str] = "Fits as the baseline of stagewise, or if there is time for one training only."
    logits: ClassVar[bool] = False

    weight: float | Schedule = option(1.0, minimum=0, help="weight of the sum of squared errors")
    taps: tuple[str, ...] | None = option(
        None, help="layers to compare, STUDENT=TEACHER or one name for both; unset: the end of each stage"
    )

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return pairs of the ends of the stages, or of the layers that ``taps`` names."""
        from kdtool.features import pairs_of

        return pairs_of(student, teacher, self.taps)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch
        from torch.nn import functional as F

        errors = [F.mse_loss(student, teacher) for student, teacher in step.maps]
        return step.cross_entropy() + step.now(self.weight) * torch.stack(errors).sum()
