"""What the methods share that compare images of a batch with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kdtool import Error, LossDistiller, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Step
    from kdtool.features import Pair


class Relation(LossDistiller):
    """Compare the images of a batch with each other, as they are before the classifier."""

    logits: ClassVar[bool] = False

    taps: tuple[str, ...] | None = option(
        None, help="layers to compare, STUDENT=TEACHER or one name for both; unset: the last before the classifier"
    )

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the last maps before the classifier, or the named layers."""
        from kdtool.features import last_stage_pair

        return last_stage_pair(student, teacher, self.taps)

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return nothing that is learnt."""
        from kdtool.features import unadapted

        return unadapted(pairs)


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
