"""What works beside the optimiser in a phase: it moves parameters of its own, and may end the phase early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

if TYPE_CHECKING:
    from kdtool.training.step import Step


class Guide(Protocol):
    """Moves some of a student's parameters in the place of the optimiser, and says when the phase is over.

    With a guide the phase's result is what the last step left, not what validated best. What it remembers is saved with
    the phase, so that one that was killed goes on as if it had not been.
    """

    over: bool
    """Whether the phase is over before its last epoch."""

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Prepare for a module on its device, and epochs of so many steps."""

    def own(self, module: nn.Module) -> list[nn.Parameter]:
        """Return the parameters that are not the optimiser's."""

    def step(self, module: nn.Module, step: Step) -> None:
        """Move them by their gradients, and clear these; called after each step of the optimiser."""

    def epoch_ended(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Do what is done between epochs, before validation; ``epoch`` of them are over, or cut short where it is over.

        Returns what is logged of the epoch, as plain numbers.
        """

    def result(self, module: nn.Module) -> nn.Module:
        """Return what of the module a checkpoint can hold, where the phase has to be given up."""

    def state(self) -> dict[str, Any]:
        """Return all that it remembers, as tensors and plain data."""

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned."""
