"""How large the gradient of a phase's loss is beside that of the labels alone, measured in its first epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kdtool.plugins.schedule import Schedule
from kdtool.utils.progress import say
from kdtool.utils.seeds import forked

if TYPE_CHECKING:
    from kdtool.training.callback import Callback
    from kdtool.training.engine import Engine
    from kdtool.training.plan import FitPlan
    from kdtool.training.step import Step

# The steps of the first epoch in which gradients are compared. A look costs two backward passes, about 4/3 of a step.
LOOKS = (1, 3, 10, 30, 100)
COST = 4 / 3

# The looks may take this part of all steps of a phase; the first ones are taken anyway.
SHARE = 0.01
LEAST = 3

# From this ratio on a line is said. The table in examples/knowledge/README.md has ratios that were measured, and how
# well the students learned.
LIMIT = 20.0


class Balance:
    """The ratio of two norms: those of the gradients of the whole loss and of the labels' cross-entropy.

    Both are taken with respect to the student's parameters that learn, on the same batch. The largest ratio of a few
    steps counts: if steps are too large, the labels' gradient grows with them, and the ratio is small again. The
    training itself is not changed by it, not in a bit.
    """

    def __init__(
        self, plan: FitPlan, module: nn.Module, engine: Engine, steps: int, callbacks: Sequence[Callback] = ()
    ) -> None:
        """Plan the looks into a phase of ``steps`` steps in each epoch that trains ``module``.

        There are none if the loss is the labels' cross-entropy alone, if the phase trains maps instead of logits, or if
        a callback has a remedy of its own.
        """
        self.plan, self.module, self.engine = plan, module, engine
        wanted = plan.objective is not None and not plan.objective.only_labels and plan.validates == "accuracy"
        if any(callback.remedy for callback in callbacks):
            wanted = False
        most = max(int(SHARE * steps * plan.training.epochs / COST), LEAST)
        self.looks = {number for number in LOOKS[:most] if number <= steps} if wanted else set()
        self.ratio = 0.0
        """The largest ratio so far; 0 before the first look."""

    def is_due(self, epoch: int, number: int) -> bool:
        """Return whether step ``number`` (from 1 on) of an epoch (from 0 on) is one of those to look at."""
        return epoch == 0 and number in self.looks

    def look(self, step: Step, loss: Tensor, number: int) -> None:
        """Compare the gradients of a batch, if a look is due in step ``number`` (from 1 on) of its epoch.

        ``loss`` is what the step is going to minimise; its graph is kept.
        """
        if not self.is_due(step.epoch, number):
            return
        try:
            labels, whole = self._norm(step.cross_entropy()), self._norm(loss)
            ratio = whole / labels if 0 < labels < math.inf and whole < math.inf else 0.0
            if ratio > LIMIT >= self.ratio:
                self._say(ratio, number, self._largest_part(step))
            self.ratio = max(ratio, self.ratio)
        except RuntimeError:
            # The graph of this network cannot be used twice, or the memory is too small: the training needs neither.
            self.looks = set()

    def logged(self, epoch: int) -> dict[str, float]:
        """Return what the log of an epoch holds of the ratio; epochs count from 0, and only the first one has it."""
        return {"gradient_ratio": float(f"{self.ratio:.3g}")} if self.ratio and epoch == 0 else {}

    def _norm(self, loss: Tensor) -> float:
        """Return the norm of a loss's gradient; in fp16 that of the scaled loss, so that no small number becomes 0."""
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        scaled = loss if self.engine.scaler is None else self.engine.scaler.scale(loss)
        gradients = torch.autograd.grad(scaled, weights, retain_graph=True, allow_unused=True)
        return float(nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None]))

    def _largest_part(self, step: Step) -> str:
        """Return the name of the loss in a sum that has the largest gradient; empty if the loss is no sum."""
        assert self.plan.objective is not None
        with forked(self.engine.device):  # a loss may draw random numbers
            norms = {name: self._norm(loss) for name, loss in self.plan.objective.parts(step).items()}
        return max(norms, key=lambda name: norms[name], default="")

    def _say(self, ratio: float, number: int, part: str) -> None:
        assert self.plan.objective is not None
        weights = self.plan.objective.weights(part)
        options = [f"{flag} (now {_typed(value)})" for flag, value in weights.items()]
        if self.plan.training.optimizer == "sgd" or not options:
            options.append("--lr")  # the steps of adam do not grow with the gradient
        say(
            f"{self.plan.name}: in step {number} the gradient of the loss is {ratio:.0f} times that of the labels "
            f"alone; if the student learns less than with --method none, lower {' or '.join(options)}"
        )


def _typed(value: float | Schedule) -> str:
    """Return the value of an option as a user types it."""
    return str(value) if isinstance(value, Schedule) else f"{value:g}"
