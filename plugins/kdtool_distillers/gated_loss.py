"""The loss of a gate search."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdtool import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step
    from kdtool_distillers.gated_options import GateSearchOptions


@dataclass(frozen=True)
class GateSearchLoss(Objective):
    """Match the teacher with the gated network: the loss of the search without its penalties."""

    options: GateSearchOptions

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch; the optimiser and the steps of the gates apply the penalties."""
        if self.options.search_loss == "ce":
            return step.cross_entropy()
        kl, target = self.divergence(step), self.options.kl_target
        # t**2 keeps the gradient the size it had at t = 1.
        return self.options.search_temperature**2 * (kl if target is None else (kl - target).abs())

    def uniform_loss(self, step: Step) -> Tensor:
        """Return the loss, KL or cross-entropy, of a student that gives all classes the same probability."""
        if self.options.search_loss == "ce":  # that of any image with a label, which the batch may not have
            return step.student.new_tensor(step.student.shape[1]).log()
        uniform = dataclasses.replace(step, student=step.student.detach() * 0)
        # With a uniform teacher the KL is 0, and the penalties, which are scaled by it, would vanish.
        return (self.options.search_temperature**2 * self.divergence(uniform)).clamp_min(1e-6)

    def divergence(self, step: Step) -> Tensor:
        """Return KL(teacher || student) at the temperature of the search, a mean over the batch, in nats."""
        from kdtool_distillers.kd import divergence

        temperature = self.options.search_temperature
        return divergence(step.student / temperature, step.teacher / temperature)
