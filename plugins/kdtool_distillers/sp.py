"""Similarity-preserving knowledge distillation (Tung and Mori, 2019, arXiv:1907.09682)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Schedule, option
from kdtool_distillers.relations import Relation, need_others

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


class SP(Relation):
    """Match which images of a batch the teacher finds similar (Tung and Mori, 2019).

    With Q [batch, channels * height * width] the maps of the last stage and G [batch, batch] the matrix Q Q^T with each
    row divided by its norm, the loss is CE + weight / batch^2 * |G(s) - G(t)|^2, the sum of squares over all pairs of
    images.
    """

    also_called: ClassVar[tuple[str, ...]] = ("similarity", "similarity-preserving")
    fits: ClassVar[str] = (
        "Fits networks of different families, whose channels cannot be compared; needs batches of many images."
    )

    weight: float | Schedule = option(3000.0, minimum=0, help="weight of the teacher's term")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch
        from torch.nn import functional as F

        need_others(self.name, step)
        terms = [F.mse_loss(similarities(student), similarities(teacher)) for student, teacher in step.maps]
        return step.cross_entropy() + step.now(self.weight) * torch.stack(terms).sum()


def similarities(maps: Tensor) -> Tensor:
    """Return the inner products [batch, batch] of the maps [batch, ...] of all images, each row divided by its norm."""
    from torch.nn import functional as F

    rows = maps.flatten(1)
    return F.normalize(rows @ rows.t())
