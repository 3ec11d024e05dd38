"""One-for-all knowledge distillation between architectures (Hao et al., 2023, arXiv:2310.19444)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, Objective, Schedule, UsageError, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run, Step
    from kdtool.features import Tap


class OFA(Distiller):
    """Match the teacher's probabilities with those of the student and of branches behind its stages (Hao et al., 2023).

    A branch turns the student's map at the end of a stage into logits, so that networks of any two architectures can be
    compared. With p the teacher's probabilities softmax(t / T), q(z) = softmax(z / T), and y the right class, the loss
    is a mean over the batch, in nats:

    CE + logit_weight * L(s) + branch_weight * sum over stages of L(s_n), with s and s_n the logits of the student and
    of the branch behind stage n, and

    L(z) = -(((1 + p_y)^gamma - 1) * log q_y(z) + sum over classes c != y of p_c^gamma * log q_c(z)).

    gamma > 1 enhances the right class beside the others, more so where the teacher is unsure (adaptive target
    enhancement); with gamma = 1, L is the cross-entropy against the teacher.

    The branch behind stage n of N has N - n separable convolutions of stride 2, each of which doubles the channels, the
    last to those of the wider of both networks' last maps; then pooling and one linear layer. Behind the last stage, a
    1x1 convolution takes their place. For students made of tokens the authors have branches of transformer blocks; here
    tokens are put in a square and take the same branches. The branches are dropped afterwards.

    The defaults are the authors' (T = 1, all weights 1); their gamma is 1 to 1.5, and 1.5 for DeiT-T to ResNet-18 on
    ImageNet. T^2 is not in their loss.
    """

    fits: ClassVar[str] = "Fits networks of different families, such as a transformer that teaches a CNN."
    one_training: ClassVar[bool] = True

    gamma: float | Schedule = option(1.0, minimum=1, help="exponent that enhances the right class (1: none)")
    temperature: float | Schedule = option(1.0, above=0, help="temperature T that softens all outputs")
    logit_weight: float | Schedule = option(1.0, minimum=0, help="weight of the student's own logits")
    branch_weight: float | Schedule = option(1.0, minimum=0, help="weight of the sum over the branches")
    stages: tuple[str, ...] | None = option(
        None, help="layers of the student behind which branches are put; unset: the end of each stage but the stem"
    )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the student with its branches, and return it without them."""
        from kdtool.training import Auxiliary
        from kdtool_distillers.branches import Branches

        self.check_student(named=student is not None, refined=False)
        assert student is not None
        taps = self._taps(student)
        with run.seeded("branches"):
            branches = Branches(taps, width=last_width(student, teacher), classes=student.architecture.classes)
        auxiliary = Auxiliary(branches, tuple(taps))
        return run.fit(self.name, student, teacher=teacher, objective=OFALoss(self), auxiliary=auxiliary).network

    def _taps(self, student: Network) -> list[Tap]:
        from kdtool.features import stage_taps, tap

        if self.stages is None:
            return stage_taps(student, stem=False)
        if not self.stages:
            raise UsageError("--stages: name at least one layer")
        return [tap(student, path) for path in self.stages]


@dataclass(frozen=True)
class OFALoss(Objective):
    """Match the student and its branches with the teacher; ``step.auxiliary`` holds the logits of the branches."""

    name: ClassVar[str] = "ofa"

    options: OFA

    def needs_labels(self) -> bool:
        """Return True: the loss needs the right class of every image."""
        return True

    def weights(self, part: str = "") -> Mapping[str, float | Schedule]:
        """Return the weights of the student's own logits and of the branches."""
        return {"--logit-weight": self.options.logit_weight, "--branch-weight": self.options.branch_weight}

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        options = self.options
        gamma, temperature = step.now(options.gamma), step.now(options.temperature)
        own, *branches = (
            enhanced(logits, step.teacher, step.target, gamma, temperature)
            for logits in (step.student, *step.auxiliary)
        )
        loss = step.cross_entropy() + step.now(options.logit_weight) * own
        return loss + step.now(options.branch_weight) * torch.stack(branches).sum()


def enhanced(student: Tensor, teacher: Tensor, target: Tensor, gamma: float, temperature: float) -> Tensor:
    """Return L, the cross-entropy against the teacher's enhanced probabilities, a mean over the batch, in nats.

    ``student`` and ``teacher`` are logits [batch, classes], ``target`` holds the right classes [batch].
    """
    from torch.nn import functional as F

    right = F.one_hot(target, student.shape[1])
    weights = ((teacher / temperature).softmax(dim=1) + right) ** gamma - right
    return -(weights * (student / temperature).log_softmax(dim=1)).sum(dim=1).mean()


def last_width(student: Network, teacher: Network) -> int:
    """Return the channels of the wider of two last maps; those of the student, where the teacher has no maps."""
    from kdtool import Error
    from kdtool.features import stage_taps

    width = stage_taps(student)[-1].channels
    try:
        return max(width, stage_taps(teacher)[-1].channels)
    except Error:
        return width
