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

    With f and g the maps of student and teacher at the end of the last stage and p a projector, the loss is
    mean((p(f) - g)^2), the larger map averaged to the size of the smaller. The labels are not used; the epoch with the
    best validation accuracy is the result.

    The result is the student up to its last stage, the projector and the teacher's classifier, which stays as it is.
    The projector ships with it: convolutions of 1x1, 3x3 and 1x1, each with batch-norm and ReLU, whose middle has the
    teacher's channels divided by ``--factor``. Both networks end in pooling and one linear layer.
    """

    fits: ClassVar[str] = (
        "Fits a student that may grow a little: projector and teacher's classifier stay in it; needs no labels."
    )

    factor: int = option(2, minimum=1, help="divides the teacher's channels to give those of the projector's middle")

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Put the classifier on the student, train the rest, and return it."""
        from kdtool.distillation import reuse_classifier

        self.check_student(named=student is not None, refined=False)
        assert student is not None
        joined, pair = reuse_classifier(student, teacher, factor=self.factor, seed=run.training.seed)
        objective = LastMaps(taps=(f"{pair.student.path}={pair.teacher.path}",))
        return run.fit(self.name, joined, teacher=teacher, objective=objective).network


@dataclass(frozen=True)
class LastMaps(Objective):
    """Match the teacher's maps as they are."""

    logits: ClassVar[bool] = False

    taps: tuple[str, ...]
    """The layers to compare, STUDENT=TEACHER or one name for both."""

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the named layers."""
        from kdtool.features import match_stages

        return match_stages(student, teacher, self.taps)

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return nothing that is learnt."""
        from kdtool.features import unadapted

        return unadapted(pairs)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        ((student, teacher),) = step.maps
        return map_distance(student, teacher)


def map_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two maps [batch, channels, height, width], at the smaller's size."""
    from torch.nn import functional as F

    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    ours, theirs = (one if one.shape[2:] == size else F.adaptive_avg_pool2d(one, size) for one in (student, teacher))
    return F.mse_loss(ours, theirs)
