"""Distilling knowledge via knowledge review (Chen, Liu, Zhao and Jia, 2021, arXiv:2104.09044)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kdtool import Schedule, option
from kdtool_distillers.warm_up import WarmUp

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Step
    from kdtool.features import Pair


class ReviewKD(WarmUp):
    """Match each stage of the teacher with the same and all later stages of the student (Chen et al., 2021).

    From the last stage to the first, the student's map is fused with the fused map of the later stages, with weights
    that attention learns for each position (ABF), and compared with the teacher's map g_s:

    CE + w * weight * sum over stages of HCL(fused_s, g_s), where w = min(epoch / warm-up, 1) and epochs count from 1.
    The warm-up is the authors' 20 epochs, but at most half of the phase, so that a short training reaches the full
    weight too; ``--teacher-warmup 20`` gives their number in any training.
    HCL(f, g) is the weighted mean of mean((f - g)^2) on the maps themselves (weight 1) and on the maps averaged to 4x4,
    2x2 and 1x1 positions (weights 1/2, 1/4, 1/8), if those are smaller than the maps.

    The maps are those before the last activation of a stage, as the authors have them: for both networks on ImageNet,
    for the teacher alone on CIFAR-100 (``--before teacher``). A stage that ends with none, as in a network whose blocks
    activate first, is compared as it is; there the authors apply the batch-norm of the next block first.

    The authors' weight for CIFAR-100 depends on the pair: 0.6 for ResNet-56 to 20, 1 for ResNet-110 to 32, 5 for
    ResNet-32x4 to 8x4 and for WRN-40-2, 8 for ResNet-32x4 to ShuffleNetV2; on ImageNet it is 1 for ResNet-34 to 18,
    with a warm-up of 1. They add the pooled features before the classifier as one more stage; it is left out here,
    since not every network has such a layer. Their code for CIFAR-100 counts epochs from 0.
    """

    also_called: ClassVar[tuple[str, ...]] = ("review", "knowledge-review")
    fits: ClassVar[str] = "Fits if the logits alone are not enough: all stages teach, at the cost of slower steps."
    logits: ClassVar[bool] = False

    weight: float | Schedule = option(1.0, minimum=0, help="weight of the teacher's term")
    before: str = option(
        "both",
        choices=("both", "teacher", "none"),
        help="networks whose maps are taken before the activation that a layer ends with",
    )
    taps: tuple[str, ...] | None = option(
        None, help="layers to compare, STUDENT=TEACHER or one name for both; unset: the end of each stage but the stem"
    )

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return pairs of the ends of the stages, or of the layers that ``taps`` names."""
        from kdtool.features import before_activation, match_stages

        pairs = match_stages(student, teacher, self.taps)
        if self.before in ("both", "teacher"):
            pairs = [dataclasses.replace(pair, teacher=before_activation(teacher, pair.teacher)) for pair in pairs]
        if self.before == "both":
            pairs = [dataclasses.replace(pair, student=before_activation(student, pair.student)) for pair in pairs]
        return pairs

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return the module that fuses the student's maps; it is trained with the student and then dropped."""
        from kdtool_distillers.fusion import Fusion

        return Fusion(pairs)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        terms = torch.stack([hierarchical(student, teacher) for student, teacher in step.maps])
        return step.cross_entropy() + self.warm(step) * step.now(self.weight) * terms.sum()


def hierarchical(student: Tensor, teacher: Tensor) -> Tensor:
    """Return HCL, the squared error at several resolutions, of two maps [batch, channels, height, width], a scalar."""
    from torch.nn import functional as F

    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for side in (4, 2, 1):
        if side >= min(student.shape[2:]):
            continue
        weight /= 2
        weights += weight
        student_pooled, teacher_pooled = (F.adaptive_avg_pool2d(maps, side) for maps in (student, teacher))
        total = total + weight * F.mse_loss(student_pooled, teacher_pooled)
    return total / weights
