"""A gift from knowledge distillation: the flow of the solution procedure (Yim, Joo, Bae and Kim, CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from kdtool import LossDistiller, Schedule, UsageError, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Step
    from kdtool.features import Pair


class FSP(LossDistiller):
    """Match how the teacher's maps of consecutive stages relate to each other (Yim et al., 2017).

    With f_l [channels, height, width] the map of an image at the end of stage l, and
    G_l = mean over positions of f_l f_(l+1)^T [channels of l, channels of l + 1], the loss is
    CE + weight * sum over l of mean((G_l(s) - G_l(t))^2), the mean over batch and channels. If the next map is smaller,
    f_l is reduced to its size by max-pooling, as in the paper (Tian et al.'s code averages).

    The paper requires equal numbers of channels; if they differ, a 1x1 convolution to the teacher's number is trained
    with the student and then dropped. The paper trains first on this term and then on the labels; here both terms are
    trained at once. The paper gives no weight for the sum; Tian et al. (arXiv:1910.10699) use 50.
    """

    fits: ClassVar[str] = (
        "Fits two networks of one family with the same stages, of which the teacher is the deeper one."
    )
    logits: ClassVar[bool] = False

    weight: float | Schedule = option(50.0, minimum=0, help="weight of the sum of squared errors")
    taps: tuple[str, ...] | None = option(
        None, help="two or more layers, STUDENT=TEACHER or one name for both; unset: the end of each stage and the stem"
    )

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return pairs of the ends of the stages, or of the layers that ``taps`` names.

        Raises:
            UsageError: there is only one pair.
        """
        from kdtool.features import match_stages

        pairs = match_stages(student, teacher, self.taps, stem=True, least=2)
        if len(pairs) < 2:
            raise UsageError(
                f"fsp relates each stage to the next, and only {pairs[0].student.path}={pairs[0].teacher.path} was "
                "found; name two or more layers with --taps"
            )
        return pairs

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch
        from torch.nn import functional as F

        student_maps, teacher_maps = zip(*step.maps, strict=True)
        student_flows, teacher_flows = (
            [flow(first, second) for first, second in pairwise(maps)] for maps in (student_maps, teacher_maps)
        )
        terms = [F.mse_loss(student, teacher) for student, teacher in zip(student_flows, teacher_flows, strict=True)]
        return step.cross_entropy() + step.now(self.weight) * torch.stack(terms).sum()


def flow(first: Tensor, second: Tensor) -> Tensor:
    """Return the products of the channels of two maps [batch, channels, height, width], averaged over positions.

    The result is [batch, channels of the first, channels of the second]. The larger map is reduced to the size of the
    smaller by max-pooling.
    """
    from torch.nn import functional as F

    size = tuple(min(sides) for sides in zip(first.shape[2:], second.shape[2:], strict=True))
    left, right = (maps if maps.shape[2:] == size else F.adaptive_max_pool2d(maps, size) for maps in (first, second))
    return left.flatten(2) @ right.flatten(2).transpose(1, 2) / (size[0] * size[1])
