"""Deep mutual learning (Zhang, Xiang, Hospedales and Lu, 2018, arXiv:1706.00384)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, LossDistiller, Objective, UsageError, nested, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run, Step


class Mutual(Distiller):
    """Let students learn at once from the labels and from each other (Zhang et al., 2018).

    With z_1 ... z_K the logits of the K networks that learn, the loss of all together is the sum over i of the mean
    over j != i of the objective's loss of z_i taught by z_j, through which no gradient flows. The default objective,
    none:1+kd:1 at T = 1, makes it the paper's sum over i of CE_i + 1 / (K - 1) * sum over j != i of KL(p_j || p_i). The
    paper updates one network after the other; here all take each step at once, from the same outputs.

    The result is the student, in the epoch in which it validates best; the others are kept in the run as they were
    then.
    """

    fits: ClassVar[str] = "Fits where there is no good teacher yet, at the price of training several networks at once."

    peers: int = option(2, minimum=1, help="how many students, alike but for their initial weights, learn together")
    teacher_learns: bool = option(False, help="let the teacher learn with them, from the weights that it has")
    objective: LossDistiller = nested(
        "distillers", "none:1+kd:1", kd={"temperature": 1.0}, help="distiller of whose loss they learn from each other"
    )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train all, and return the student."""
        from kdtool import Network
        from kdtool.training import Auxiliary
        from kdtool_distillers.only_logits import need_logits
        from kdtool_distillers.peers import Peers

        self.check_student(named=student is not None, refined=False)
        assert student is not None
        others = {f"peer {number}": run.reinitialize(f"peer {number}", student) for number in range(2, self.peers + 1)}
        others |= {"teacher": teacher} if self.teacher_learns else {}
        if not others:
            raise UsageError("--peers 1: there is nobody to learn from; ask for 2 or more, or for --teacher-learns")
        for other in others.values():
            need_logits(self.name, self.objective, student, other)
        auxiliary = Auxiliary(Peers([other.module for other in others.values()]))
        fit = run.fit(self.name, student, objective=Together(objective=self.objective), auxiliary=auxiliary)
        run.keep("student", fit.network, taught_by=", ".join(others))
        assert isinstance(fit.auxiliary, Peers)
        for (name, other), module in zip(others.items(), fit.auxiliary.members, strict=True):
            taught_by = ", ".join(["student", *(one for one in others if one != name)])
            run.keep(name, Network(other.architecture, module), taught_by=taught_by)
        return fit.network


@dataclass(frozen=True)
class Together(Objective):
    """Learn from each other: the sum of everyone's loss."""

    name: ClassVar[str] = "mutual"
    logits: ClassVar[bool] = False

    objective: Objective
    """The loss of each network taught by each of the others."""

    def needs_labels(self) -> bool:
        """Return whether the objective does."""
        return self.objective.needs_labels()

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        everyone = [step.student, *step.auxiliary]
        terms = []
        for i, own in enumerate(everyone):
            others = [other.detach() for j, other in enumerate(everyone) if j != i]
            taught = [dataclasses.replace(step, student=own, teacher=other, auxiliary=()) for other in others]
            terms.append(torch.stack([self.objective.loss(one) for one in taught]).mean())
        return torch.stack(terms).sum()
