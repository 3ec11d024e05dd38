"""The warm-up of a loss: the weights of the teacher's terms grow in the first epochs (as in DKD and ReviewKD)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdtool import LossDistiller, option

if TYPE_CHECKING:
    from kdtool import Step

# The authors of DKD and ReviewKD warm up in 20 of their 240 epochs. A training of 10 epochs needs more than that share
# of 1/12: examples/knowledge/README.md has what came out with other lengths.
EPOCHS = 20
LARGEST_SHARE = 0.5


class WarmUp(LossDistiller):
    """Let the weights of the teacher's terms grow linearly in the first epochs."""

    teacher_warmup: float | None = option(
        None,
        minimum=0,
        help="epochs in which the weights of the teacher's terms grow linearly; unset: 20, at most half of the phase",
    )

    def warm(self, step: Step) -> float:
        """Return the part of the weights that counts in the epoch of a step."""
        return warmed_up(step.epoch, step.epochs, self.teacher_warmup)


def warmed_up(epoch: int, epochs: int, duration: float | None) -> float:
    """Return w = min((epoch + 1) / duration, 1), the part of a weight that counts in an epoch (the first is 0).

    A duration of None is 20 epochs, but at most half of all ``epochs``.
    """
    if duration is None:
        duration = min(EPOCHS, LARGEST_SHARE * epochs)
    return min((epoch + 1) / duration, 1.0) if duration else 1.0
