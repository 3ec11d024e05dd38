"""Online distillation: the teacher learns from the data while the student learns from it (Gou et al., 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, LossDistiller, Objective, Schedule, nested, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run, Step


class Online(Distiller):
    """Train the teacher on the labels alone, and in the same steps the student with what the teacher says by then.

    This is the online distillation of the review of Gou, Yu, Maybank and Tao (2021, arXiv:2006.05525, section 4.2) with
    a teacher that is larger than its student: with z the student's logits, z' the teacher's, m and m' their maps,

    loss = CE(y, z') + objective(y, z, z', m, m')

    No gradient flows through z' and m' into the teacher, which therefore learns what it would learn by itself. The
    objective may compare logits, maps or relations. By default both begin with fresh weights; the given checkpoint
    provides the structure of the teacher and the data. For networks that teach each other there is ``mutual``.

    The result is the student of the epoch with its best validation accuracy; the run keeps the teacher of that epoch.
    """

    fits: ClassVar[str] = "Fits if the teacher is not trained yet: one training makes both networks."
    one_training: ClassVar[bool] = True

    fresh: bool = option(True, help="begin with fresh weights of the teacher; off: go on with its present ones")
    objective: LossDistiller = nested("distillers", "kd", help="distiller whose loss the student learns with")

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train both networks together and return the student."""
        from kdtool import Network
        from kdtool.training import Auxiliary
        from kdtool_distillers.learning_teacher import LearningTeacher
        from kdtool_distillers.only_logits import need_no_classifier, need_one_view

        self.check_student(named=student is not None, refined=False)
        assert student is not None
        objective = self.objective
        need_one_view(self.name, objective)
        need_no_classifier(self.name, objective)
        objective.check(student, teacher)
        if self.fresh:
            teacher = run.reinitialize("teacher", teacher)
        pairs = tuple(objective.watch(student, teacher))
        with run.seeded("adapters"):
            adapters = objective.adapters(pairs)
        learning = LearningTeacher(teacher.module, [pair.teacher for pair in pairs], adapters)
        auxiliary = Auxiliary(learning, tuple(pair.student for pair in pairs), independent=(teacher.module,))
        loss = OnlineLoss(objective=objective, owners=tuple(pair.owner for pair in pairs))
        fit = run.fit(self.name, student, objective=loss, auxiliary=auxiliary)
        run.keep("student", fit.network, taught_by="teacher")
        assert isinstance(fit.auxiliary, LearningTeacher)
        taught = Network(teacher.architecture, fit.auxiliary.teacher)
        run.keep("teacher", taught, taught_by="labels", masked=not self.fresh and run.teachers[0].masked)
        return fit.network


@dataclass(frozen=True)
class OnlineLoss(Objective):
    """The teacher's cross-entropy and the student's objective.

    ``step.auxiliary`` holds the teacher's logits, then the student's adapted maps, then the teacher's maps.
    """

    name: ClassVar[str] = "online"
    logits: ClassVar[bool] = False

    objective: Objective
    """What the student learns."""
    owners: tuple[str, ...] = ()
    """The owners of the pairs of maps (see `kdtool.features.Pair`)."""

    def needs_labels(self) -> bool:
        """Return whether the objective needs the one label of each image."""
        return self.objective.needs_labels()

    def weights(self, part: str = "") -> Mapping[str, float | Schedule]:
        """Return the options that weigh the terms of the objective."""
        return self.objective.weights(part)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        logits, *maps = step.auxiliary
        adapted, taught = maps[: len(self.owners)], maps[len(self.owners) :]
        compared = [(own.float(), other.detach().float()) for own, other in zip(adapted, taught, strict=True)]
        alone = dataclasses.replace(step, student=logits.float(), auxiliary=())
        pupil = dataclasses.replace(
            step, teacher=logits.detach().float(), maps=compared, owners=self.owners, auxiliary=()
        )
        return alone.cross_entropy() + self.objective.loss(pupil)
