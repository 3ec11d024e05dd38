"""Be your own teacher (Zhang, Song, Gao, Chen, Bao and Ma, 2019, arXiv:1905.08094)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, Objective, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run, Step


class Self(Distiller):
    """Let the early stages of a network learn from its last one, by exits that are dropped afterwards (Zhang et al.,
    2019).

    An exit at the end of each stage but the last makes features f_i [batch, channels], as many as the network's last
    map has, and logits z_i of them. With f and z the last map, meaned over positions, and the logits of the network
    itself, through which no gradient flows where they teach, the loss is

    (1 - alpha) * (CE(z) + sum over i of CE(z_i)) + alpha * sum over i of T^2 * CE(softmax(z / T), softmax(z_i / T))
    + beta * sum over i of |f_i - f|^2.

    CE is meaned over the batch, the squares are summed over batch and channels, as in the authors' code, whose numbers
    the defaults are. The checkpoint that is given says which data and, where no student is named, which structure; its
    weights are not used.
    """

    fits: ClassVar[str] = "Fits where there is no teacher at all; the training costs more, the result does not."
    needs_student: ClassVar[bool] = False

    temperature: float | Schedule = option(3.0, above=0, help="temperature T that softens both outputs")
    alpha: float | Schedule = option(
        0.1, minimum=0, maximum=1, help="weight of what the last stage teaches; the labels have the rest"
    )
    beta: float | Schedule = option(1e-6, minimum=0, help="weight of the squared differences of the features")
    exits: tuple[str, ...] | None = option(
        None, help="layers behind which an exit is put; unset: the end of each stage but the last"
    )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the student with its exits, and return it without them."""
        from kdtool.training import Auxiliary
        from kdtool_distillers.exits import Exits, taps_of

        if student is None:
            student = run.reinitialize("student", teacher)
        taps = taps_of(student, self.exits)
        with run.seeded("exits"):
            exits = Exits(taps, student.architecture.classes)
        return run.fit(self.name, student, objective=Inward(self), auxiliary=Auxiliary(exits, tuple(taps))).network


@dataclass(frozen=True)
class Inward(Objective):
    """Learn from one's own last stage: ``step.auxiliary`` holds what the exits make."""

    logits: ClassVar[bool] = False

    options: Self

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        options = self.options
        alpha, beta, temperature = (step.now(number) for number in (options.alpha, options.beta, options.temperature))
        last, features, exits = step.auxiliary[0], step.auxiliary[1::2], step.auxiliary[2::2]
        hard = [step.cross_entropy(), *(dataclasses.replace(step, student=one).cross_entropy() for one in exits)]
        soft = torch.stack([softened(one, step.student.detach(), temperature) for one in exits]).sum()
        apart = torch.stack([(one - last.detach()).square().sum() for one in features]).sum()
        return (1 - alpha) * torch.stack(hard).sum() + alpha * soft + beta * apart


def softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * cross-entropy of the student's softened probabilities against the teacher's, meaned over the batch.

    Both are logits [batch, classes].
    """
    from torch.nn import functional as F

    return temperature**2 * F.cross_entropy(student / temperature, (teacher / temperature).softmax(dim=1))
