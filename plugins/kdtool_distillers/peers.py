"""Networks that are trained together with a student, on the same images."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


class Peers(nn.Module):
    """Several networks that run on the same images."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Return the logits [batch, classes] of each network; ``maps`` are not used."""
        return [member(images) for member in self.members]
