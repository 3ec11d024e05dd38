"""Deep mutual learning (Zhang, Xiang, Hospedales and Lu, 2018, arXiv:1706.00384)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, LossDistiller, Objective, Schedule, UsageError, nested, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run, Step


class Mutual(Distiller):
    """Train several students together, on the labels and on each other's outputs (Zhang et al., 2018).

    With z_1 ... z_K the logits of the K networks, the loss is the sum over i of the mean over j != i of the objective's
    loss with z_i as student and z_j as teacher; no gradient flows through z_j. With the default objective, none:1+kd:1
    at T = 1, this is the paper's sum over i of CE_i + 1 / (K - 1) * sum over j != i of KL(p_j || p_i). The paper
    updates one network after the other; here all are updated in the same step, from the same outputs.

    The result is the student of the epoch with its best validation accuracy; the run keeps the other networks of that
    epoch.
    """

    also_called: ClassVar[tuple[str, ...]] = ("dml", "deep-mutual-learning")
    fits: ClassVar[str] = "Fits if there is no good teacher yet, at the cost of training several networks at once."

    peers: int = option(2, minimum=1, help="number of students, which differ in their initial weights only")
    teacher_learns: bool = option(False, help="train the teacher with them, from its present weights")
    objective: LossDistiller = nested(
        "distillers",
        "none:1+kd:1",
        kd={"temperature": 1.0},
        help="distiller whose loss they learn from each other with",
    )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train all networks together and return the student."""
        from kdtool import Network
        from kdtool.training import Auxiliary
        from kdtool_distillers.only_logits import need_logits, need_no_classifier, need_one_view
        from kdtool_distillers.peers import Peers

        self.check_student(named=student is not None, refined=False)
        assert student is not None
        need_one_view(self.name, self.objective)
        need_no_classifier(self.name, self.objective)
        others = {f"peer {number}": run.reinitialize(f"peer {number}", student) for number in range(2, self.peers + 1)}
        others |= {"teacher": teacher} if self.teacher_learns else {}
        if not others:
            raise UsageError("--peers 1: the student has no peer to learn from; give 2 or more, or --teacher-learns")
        for other in others.values():
            need_logits(self.name, self.objective, student, other)
        members = tuple(other.module for other in others.values())
        auxiliary = Auxiliary(Peers(members), independent=members)
        fit = run.fit(self.name, student, objective=MutualLoss(objective=self.objective), auxiliary=auxiliary)
        run.keep("student", fit.network, taught_by=", ".join(others))
        assert isinstance(fit.auxiliary, Peers)
        for (name, other), module in zip(others.items(), fit.auxiliary.members, strict=True):
            taught_by = ", ".join(["student", *(peer for peer in others if peer != name)])
            masked = other is teacher and run.teachers[0].masked
            run.keep(name, Network(other.architecture, module), taught_by=taught_by, masked=masked)
        return fit.network


@dataclass(frozen=True)
class MutualLoss(Objective):
    """The sum of the losses of all networks, each taught by all others; ``step.auxiliary`` holds the peers' logits."""

    name: ClassVar[str] = "mutual"
    logits: ClassVar[bool] = False

    objective: Objective
    """The loss of one network taught by one other."""

    def needs_labels(self) -> bool:
        """Return whether the objective needs labels."""
        return self.objective.needs_labels()

    def weights(self, part: str = "") -> Mapping[str, float | Schedule]:
        """Return the options that weigh the terms of the objective."""
        return self.objective.weights(part)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        logits = [step.student, *step.auxiliary]
        terms = []
        for i, own in enumerate(logits):
            others = [other.detach() for j, other in enumerate(logits) if j != i]
            steps = [dataclasses.replace(step, student=own, teacher=other, auxiliary=()) for other in others]
            terms.append(torch.stack([self.objective.loss(pair) for pair in steps]).mean())
        return torch.stack(terms).sum()
