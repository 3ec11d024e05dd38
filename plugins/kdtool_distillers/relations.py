"""The base of the methods that compare the images of a batch with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kdtool import Error, LossDistiller, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Step
    from kdtool.features import Pair


class Relation(LossDistiller):
    """Compare the images of a batch with each other, by their features before the classifier."""

    logits: ClassVar[bool] = False

    taps: tuple[str, ...] | None = option(
        None, help="layers to compare, STUDENT=TEACHER or one name for both; unset: the last before the classifier"
    )

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the pair of the last maps before the classifier, or pairs of the layers that ``taps`` names."""
        from kdtool.features import last_stage_pair

        return last_stage_pair(student, teacher, self.taps)

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return adapters without parameters: the maps are compared as they are."""
        from kdtool.features import unadapted

        return unadapted(pairs)


def need_others(name: str, step: Step) -> None:
    """Check that a batch has at least two images to compare.

    Raises:
        Error: it has one image.
    """
    if len(step.student) < 2:
        raise Error(
            f"{name} compares the images of a batch with each other, and this one has 1; use a larger --batch-size"
        )


def embedded(maps: Tensor) -> Tensor:
    """Return the mean over positions of maps [batch, channels, height, width], which a classifier reads."""
    return maps.mean(dim=(2, 3))
