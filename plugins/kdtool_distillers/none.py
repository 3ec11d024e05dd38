"""No teacher: what a student comes to by itself, for comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


class Alone(Distiller):
    """Train the student on the labels alone, as the baseline of every distillation.

    The loss is the cross-entropy against the labels; the teacher is not asked.
    """

    name: ClassVar[str] = "none"
    logits: ClassVar[bool] = False

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        return step.cross_entropy()


@hookimpl
def distillers() -> list[type[Distiller]]:
    """Bring the method."""
    return [Alone]
