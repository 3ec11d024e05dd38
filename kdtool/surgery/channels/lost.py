"""What each layer loses when channels are removed from groups of layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from kdtool.surgery.channels.selection import Ranked


class Lost:
    """The channels that each layer loses, by its path and by role: ``outputs``, ``inputs`` or ``tensor``."""

    def __init__(self, chosen: Sequence[tuple[Ranked, int]]) -> None:
        self.by_role: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.dims: dict[str, int] = {}
        for ranking, step in chosen:
            gone = torch.zeros(ranking.group.size, dtype=torch.bool)
            gone[ranking.lost(step)] = True
            for member in ranking.group.members:
                channels = member.channels[gone[member.roots]].tolist()
                for role in ("outputs", "inputs") if member.role == "both" else (member.role,):
                    self.by_role[member.path, role].update(channels)
                self.dims[member.path] = member.dim

    def kept(self, path: str, role: str, size: int) -> Tensor:
        """Return the indices that stay of ``size`` channels."""
        stays = torch.ones(size, dtype=torch.bool)
        stays[list(self.by_role.get((path, role), ()))] = False
        return stays.nonzero().flatten()
