"""What the methods share that compare images of a batch with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdtool import Error

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


def need_others(name: str, step: Step) -> None:
    """Check that there is an image to compare with.

    Raises:
        Error: the batch is of one image.
    """
    if len(step.student) < 2:
        raise Error(
            f"{name} compares the images of a batch with each other, and there is one; use a larger --batch-size"
        )


def embedded(maps: Tensor) -> Tensor:
    """Return maps [batch, channels, height, width] meaned over positions, as a classifier sees them."""
    return maps.mean(dim=(2, 3))
