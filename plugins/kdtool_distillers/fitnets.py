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
    """Match the teacher's map in the middle of the network, a hint on the way (Romero et al., 2014).

    With f and g the maps of student and teacher at the end of the middle stage, r a 1x1 convolution that is learnt
    with the student and thrown away (none where the shapes agree), the loss is CE + weight * mean((r(f) - g)^2).

    The paper trains up to the hint first and then all with kd; here both go on at once, with the weight of 100 that
    Tian et al. (arXiv:1910.10699) compare with.
    """

    fits: ClassVar[str] = "Fits a deep student that is slow to learn; the widths may differ."
    logits: ClassVar[bool] = False

    weight: float | Schedule = option(100.0, minimum=0, help="weight of the squared error")
    taps: tuple[str, ...] | None = option(
        None, help="layers to compare, STUDENT=TEACHER or one name for both; unset: the end of the middle stage"
    )

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the ends of the middle stages, or the named layers."""
        from kdtool.features import match_stages

        pairs = match_stages(student, teacher, self.taps)
        return pairs if self.taps is not None else [pairs[(len(pairs) - 1) // 2]]

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch
        from torch.nn import functional as F

        terms = [F.mse_loss(*both) for both in step.maps]
        return step.cross_entropy() + step.now(self.weight) * torch.stack(terms).sum()
