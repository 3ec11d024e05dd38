"""How many images a step has, for losses that are a sum over them (see `kdtool_distillers.self`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Callback

if TYPE_CHECKING:
    from torch import nn

    from kdtool import Step


@dataclass(eq=False)
class StepImages(Callback):
    """Counts the steps of an epoch, so that the passes of a step know how many images it has in all of them.

    A pass sees its own images alone, and counts in the step as a mean over them. The last step of an epoch may be
    smaller than the others, which cannot be told from the size of its passes; so a recorded step would be wrong there.
    """

    reads_step: ClassVar[bool] = False

    images: int
    """How many images an epoch has."""
    batch_size: int
    taken: int = field(default=0, init=False, repr=False)
    """The steps of this epoch that are over."""

    @property
    def count(self) -> int:
        """The images of the present step, in all passes of all processes."""
        return min(self.batch_size, self.images - self.taken * self.batch_size)

    def begin(self, module: nn.Module, steps: int, epochs: int) -> None:
        """Begin an epoch: a phase resumes at the beginning of one."""
        self.taken = 0

    def after_step(self, module: nn.Module, step: Step) -> None:
        """Count the step."""
        self.taken += 1

    def after_epoch(self, module: nn.Module, epoch: int) -> dict[str, Any]:
        """Begin the next epoch."""
        self.taken = 0
        return {}
