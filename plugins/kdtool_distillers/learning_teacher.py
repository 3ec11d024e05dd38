"""A teacher that is trained in the same steps as its student."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kdtool.features import Tap, watched


class LearningTeacher(nn.Module):
    """A teacher, the layers where it is watched, and the adapters that give the student's maps the shape of its own."""

    def __init__(self, teacher: nn.Module, taps: Sequence[Tap], adapters: nn.Module) -> None:
        super().__init__()
        self.teacher, self.adapters, self.taps = teacher, adapters, list(taps)

    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Return the teacher's logits [batch, classes], the adapted maps of the student, and the teacher's maps.

        ``maps`` are the student's, [batch, channels, height, width].
        """
        logits, taught = watched(self.teacher, images, self.taps)
        return [logits, *self.adapters(maps), *taught]
