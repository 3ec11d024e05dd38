"""FitNets: hints from the middle of the teacher (Romero et al., 2014, arXiv:1412.6550)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kdtool import LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Step
    from kdtool.features import Pair


class FitNets(LossDistiller):
    """Match the teacher's map in the middle of the network, the hint (Romero et al., 2014).

    With f and g the maps of student and teacher at the end of the middle stage, and r a 1x1 convolution, the loss is
    CE + weight * mean((r(f) - g)^2). The convolution is trained with the student and then dropped; there is none if the
    maps have the same shape.

    The paper first trains the student up to the hint, and then all of it with kd; here both terms are trained at once,
    with the weight of 100 that Tian et al. (arXiv:1910.10699) use in their comparison.
    """

    also_called: ClassVar[tuple[str, ...]] = ("hint", "hints", "feature", "features")
    fits: ClassVar[str] = "Fits a deep student that learns slowly; the widths may differ."
    logits: ClassVar[bool] = False

    weight: float | Schedule = option(100.0, minimum=0, help="weight of the squared error")
    taps: tuple[str, ...] | None = option(
        None, help="layers to compare, STUDENT=TEACHER or one name for both; unset: the end of the middle stage"
    )

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the pair of the ends of the middle stages, or pairs of the layers that ``taps`` names."""
        from kdtool.features import match_stages

        pairs = match_stages(student, teacher, self.taps)
        return pairs if self.taps is not None else [pairs[(len(pairs) - 1) // 2]]

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch
        from torch.nn import functional as F

        terms = [F.mse_loss(student, teacher) for student, teacher in step.maps]
        return step.cross_entropy() + step.now(self.weight) * torch.stack(terms).sum()
