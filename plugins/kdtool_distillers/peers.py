"""Networks that learn beside a student, each from the same images."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


class Peers(nn.Module):
    """Networks side by side: images to a list of their logits."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Return the logits [batch, classes] of each."""
        return [member(images) for member in self.members]
