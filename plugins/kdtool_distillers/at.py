"""Attention transfer (Zagoruyko and Komodakis, 2016, arXiv:1612.03928)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kdtool import LossDistiller, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Step
    from kdtool.features import Pair


class AT(LossDistiller):
    """Match the teacher's attention: the energy of the maps at each position (Zagoruyko and Komodakis, 2016).

    With a(F) = q / |q|_2 and q = mean over channels of F^2, flattened, the loss is
    CE + weight * sum over stages of mean((a(f_s) - a(g_s))^2), the mean over batch and positions. f_s and g_s are the
    maps of student and teacher at the end of stage s.

    The paper prints the norm of the difference; the squares and the weight are those of the authors' code. If the
    resolutions differ, the larger q is averaged to the size of the smaller; Tian et al. (arXiv:1910.10699) average the
    maps instead. The numbers of channels may differ.
    """

    also_called: ClassVar[tuple[str, ...]] = ("attention", "attention-transfer")
    fits: ClassVar[str] = (
        "Fits two networks with maps of the same resolutions, ideally of one family; it learns no adapters."
    )
    logits: ClassVar[bool] = False

    weight: float | Schedule = option(1000.0, minimum=0, help="weight of the sum of squared errors")
    taps: tuple[str, ...] | None = option(
        None, help="layers to compare, STUDENT=TEACHER or one name for both; unset: the end of each stage but the stem"
    )

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return pairs of the ends of the stages, or of the layers that ``taps`` names."""
        from kdtool.features import match_stages

        return match_stages(student, teacher, self.taps)

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return adapters without parameters: the maps are compared as they are."""
        from kdtool.features import unadapted

        return unadapted(pairs)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        terms = [attention_loss(student, teacher) for student, teacher in step.maps]
        return step.cross_entropy() + step.now(self.weight) * torch.stack(terms).sum()


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the attention of two maps [batch, channels, height, width], a scalar.

    Both are compared at the smaller of the two resolutions; the numbers of channels may differ.
    """
    from torch.nn import functional as F

    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return F.mse_loss(attention(student, size), attention(teacher, size))


def attention(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the energy of maps [batch, channels, height, width], averaged to ``size``, as rows of norm 1.

    The result is [batch, positions].
    """
    from torch.nn import functional as F

    energy = maps.square().mean(dim=1)
    if energy.shape[1:] != size:
        energy = F.adaptive_avg_pool2d(energy, size)
    return F.normalize(energy.flatten(1))
