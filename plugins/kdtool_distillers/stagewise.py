"""Stagewise distillation (Kulkarni, Panchi, Raparthy and Chiddarwar, 2021, arXiv:1911.06786)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, LossDistiller, Objective, UsageError, nested, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run, Step
    from kdtool.features import Pair


class Stagewise(Distiller):
    """Teach one stage after the other to make the teacher's maps, then the head the classes (Kulkarni et al., 2021).

    With f_s and g_s the maps of student and teacher at the end of stage s = 1 .. n, stage s is trained on
    mean((f_s - g_s)^2) over batch, channels and positions. All stages before it are frozen, including the statistics of
    their batch-norms. The next stage starts from the epoch with the smallest validation loss. Then the head (all that
    follows stage n) is trained on the cross-entropy against the labels, or on an objective, and the epoch with the best
    validation accuracy is the result. Each of the n + 1 phases takes ``--epochs``. If the maps differ in shape, a 1x1
    convolution (and interpolation) is trained with the stage and then dropped; with equal shapes there is none, as in
    the paper.

    The outputs of the frozen stages and of the teacher are computed once per image and kept in the run, so that an
    epoch costs only the stage that is trained. The loss of a stage is validated on at most a quarter as many images as
    it is trained on (500 at least). The paper's settings are Adam at 1e-4, batches of 64 and 100 epochs per
    stage.
    """

    also_called: ClassVar[tuple[str, ...]] = ("layerwise", "blockwise")
    fits: ClassVar[str] = (
        "Fits little data: each stage learns from the teacher's maps; both networks need the same stages."
    )

    taps: tuple[str, ...] | None = option(
        None, help="layers at the end of each stage, STUDENT=TEACHER or one name for both; unset: found automatically"
    )

    objective: LossDistiller | None = nested(
        "distillers", help="distiller whose loss of logits trains the head; unset: only the labels, as in the paper"
    )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the stages, then the head, and return the student."""
        from kdtool.features import parts_of
        from kdtool_distillers.only_logits import need_logits

        self.check_student(named=student is not None, refined=False)
        assert student is not None
        if self.objective is not None:
            need_logits(f"the head of {self.name}", self.objective, student, teacher)
        pairs = paired(student, teacher, self.taps)
        *stages, head = parts_of(student, [pair.student for pair in pairs])
        for number, (pair, stage) in enumerate(zip(pairs, stages, strict=True), start=1):
            if not stage.learns:
                raise UsageError(
                    f"--taps: no layer with parameters lies between {pair.student.path} and the tap before it; leave "
                    "one of them out"
                )
            objective = StageLoss(taps=(f"{pair.student.path}={pair.teacher.path}",))
            student = run.fit(f"stage {number}", student, teacher=teacher, objective=objective, part=stage).network
        return run.fit("head", student, teacher=teacher, objective=self.objective, part=head).network


@dataclass(frozen=True)
class StageLoss(Objective):
    """Match the teacher's maps: the sum over the taps of mean((f - g)^2)."""

    logits: ClassVar[bool] = False
    validates: ClassVar[str] = "loss"

    taps: tuple[str, ...]
    """The pairs of layers to compare: STUDENT=TEACHER, or one name for both."""

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the named pairs of layers."""
        from kdtool.features import pairs_of

        return pairs_of(student, teacher, self.taps)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch
        from torch.nn import functional as F

        return torch.stack([F.mse_loss(student, teacher) for student, teacher in step.maps]).sum()


def paired(student: Network, teacher: Network, taps: Sequence[str] | None) -> Sequence[Pair]:
    """Return the pairs that ``taps`` names, by default the ends of all stages after which the student can be cut."""
    from kdtool.features import cuttable, pairs_of

    pairs = pairs_of(student, teacher, taps)
    if taps is not None:
        return pairs
    cuts = cuttable(student, [pair.student for pair in pairs])
    return [pair for pair in pairs if pair.student in cuts]
