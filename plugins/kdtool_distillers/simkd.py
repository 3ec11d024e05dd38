"""Knowledge distillation with the reused teacher classifier (Chen et al., 2022, arXiv:2203.14001)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, Objective, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Run, Step
    from kdtool.features import Pair


class SimKD(Distiller):
    """Reuse the teacher's classifier and teach the student to make the teacher's last maps (Chen et al., 2022).

    With f and g the maps of student and teacher at the end of the last stage, the larger one averaged to the size of
    the smaller, and p a projector, the loss is mean((p(f) - g)^2). So a larger map of the student is averaged before
    it is projected, in the result too. The labels are not used in training; the epoch with the best validation accuracy
    is kept.

    The result is the student up to its last stage, the projector, and the teacher's classifier, which is not trained.
    The projector stays in the result. It has convolutions of 1x1, 3x3 and 1x1, each with batch-norm and ReLU; the
    middle one has the teacher's channels divided by ``--factor``. Both networks must end in pooling and one linear
    layer.
    """

    fits: ClassVar[str] = (
        "Fits a student that may grow a little: it keeps the projector and the teacher's classifier; needs no labels."
    )

    factor: int = option(
        2, minimum=1, help="the teacher's channels divided by this are those of the middle of the projector"
    )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Put the teacher's classifier on the student, train the rest and return it."""
        from kdtool.distillation import reuse_classifier

        self.check_student(named=student is not None, refined=False)
        assert student is not None
        joined, pair = reuse_classifier(student, teacher, factor=self.factor, seed=run.training.seed)
        objective = MapLoss(taps=(f"{pair.student.path}={pair.teacher.path}",))
        return run.fit(self.name, joined, teacher=teacher, objective=objective).network


@dataclass(frozen=True)
class MapLoss(Objective):
    """Match one map of the teacher, without an adapter."""

    logits: ClassVar[bool] = False

    taps: tuple[str, ...]
    """The pair of layers to compare: STUDENT=TEACHER, or one name for both."""

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the named pair of layers."""
        from kdtool.features import match_stages

        return match_stages(student, teacher, self.taps)

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return adapters without parameters: the maps are compared as they are."""
        from kdtool.features import unadapted

        return unadapted(pairs)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        ((student, teacher),) = step.maps
        return map_distance(student, teacher)


def map_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two maps [batch, channels, height, width] at the smaller size, a scalar."""
    from torch.nn import functional as F

    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    student, teacher = (
        maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size) for maps in (student, teacher)
    )
    return F.mse_loss(student, teacher)
