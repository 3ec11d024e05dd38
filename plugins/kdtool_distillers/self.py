"""Be your own teacher (Zhang, Song, Gao, Chen, Bao and Ma, 2019, arXiv:1905.08094)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, Objective, Schedule, option

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network, Run, Step
    from kdtool_distillers.step_images import StepImages


class Self(Distiller):
    """Teach the early stages of a network by its last one, through exits that are dropped afterwards (Zhang et al.,
    2019).

    An exit at the end of each stage except the last makes features f_i [batch, channels], as many as the channels of
    the network's last map, and logits z_i from them. With f the mean over positions of the last map and z the logits of
    the network itself, the loss is

    (1 - alpha) * (CE(z) + sum over i of CE(z_i)) + alpha * sum over i of T^2 * CE(softmax(z / T), softmax(z_i / T))
    + beta * sum over i of |f_i - f|^2.

    No gradient flows through z and f where they are targets. CE is a mean over the batch; the squares are summed over
    batch and channels, as in the authors' code, from which the defaults are taken. The batch is that of a whole step,
    also if several passes or processes share it. The given checkpoint only provides the data and, if no student is
    named, the structure; its weights are not used.
    """

    also_called: ClassVar[tuple[str, ...]] = ("self-distillation", "byot", "be-your-own-teacher")
    fits: ClassVar[str] = "Fits if there is no teacher; the training costs more, the result does not."
    needs_student: ClassVar[bool] = False

    temperature: float | Schedule = option(3.0, above=0, help="temperature T that softens both outputs")
    alpha: float | Schedule = option(
        0.1, minimum=0, maximum=1, help="weight of the terms of the last stage; the labels' weight is 1 - alpha"
    )
    beta: float | Schedule = option(1e-6, minimum=0, help="weight of the squared differences of the features")
    exits: tuple[str, ...] | None = option(
        None, help="layers behind which exits are put; unset: the end of each stage but the last"
    )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the student with its exits, and return it without them."""
        from kdtool.training import Auxiliary
        from kdtool_distillers.exits import Exits, taps_of
        from kdtool_distillers.step_images import StepImages

        if student is None:
            student = run.reinitialize("student", teacher)
        taps = taps_of(student, self.exits)
        with run.seeded("exits"):
            exits = Exits(taps, student.architecture.classes)
        images = StepImages(len(run.data.train), int(run.training.batch_size))
        return run.fit(
            self.name,
            student,
            objective=SelfLoss(self, images),
            auxiliary=Auxiliary(exits, tuple(taps)),
            callbacks=[images],
        ).network


@dataclass(frozen=True)
class SelfLoss(Objective):
    """Match the exits with the network's own last stage; ``step.auxiliary`` holds the outputs of `Exits`."""

    logits: ClassVar[bool] = False

    options: Self
    images: StepImages | None = None
    """What knows the images of the whole step; None: each batch is a whole step."""

    def weights(self, part: str = "") -> Mapping[str, float | Schedule]:
        """Return the weights of the terms of the last stage and of the features."""
        return {"--alpha": self.options.alpha, "--beta": self.options.beta}

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        options = self.options
        alpha, beta, temperature = (step.now(number) for number in (options.alpha, options.beta, options.temperature))
        last, features, exits = step.auxiliary[0], step.auxiliary[1::2], step.auxiliary[2::2]
        hard = [step.cross_entropy(), *(dataclasses.replace(step, student=logits).cross_entropy() for logits in exits)]
        soft = torch.stack([softened(logits, step.student.detach(), temperature) for logits in exits]).sum()
        hints = torch.stack([(early - last.detach()).square().sum() for early in features]).sum()
        # The loss of a pass counts by its part of the images, as suits a mean; the hints are a sum over the whole step.
        passes = 1.0 if self.images is None else self.images.count / len(step.student)
        return (1 - alpha) * torch.stack(hard).sum() + alpha * soft + beta * passes * hints


def softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 * cross-entropy of the student's softened probabilities against the teacher's, in nats.

    It is a mean over the batch. ``student`` and ``teacher`` are logits [batch, classes].
    """
    from torch.nn import functional as F

    return temperature**2 * F.cross_entropy(student / temperature, (teacher / temperature).softmax(dim=1))
