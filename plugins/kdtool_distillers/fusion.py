"""Attention-based fusion of a student's maps from the last stage to the first, as ReviewKD compares them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from kdtool.features import Pair

# The most channels that maps are fused in (the authors').
WIDEST = 512


class Fusion(nn.Module):
    """Fuse each map with those behind it: lists of the student's maps to lists of maps of the teacher's shapes."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__()
        width = min(WIDEST, pairs[-1].student.channels)
        last = len(pairs) - 1
        self.blocks = nn.ModuleList(
            Fuse(pair.student.channels, width, pair.teacher.channels, pair.teacher.grid, fuses=number < last)
            for number, pair in enumerate(pairs)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the fused maps, in the order of the stages."""
        behind: Tensor | None = None
        found = []
        for block, own in zip(reversed(self.blocks), reversed(maps), strict=True):
            output, behind = block(own, behind)
            found.append(output)
        return found[::-1]


class Fuse(nn.Module):
    """Fuse one map [batch, channels, height, width] with what was fused behind it (ABF)."""

    def __init__(self, channels: int, width: int, out: int, grid: tuple[int, int], *, fuses: bool) -> None:
        super().__init__()
        self.grid = grid
        narrow, widen = nn.Conv2d(channels, width, 1, bias=False), nn.Conv2d(width, out, 3, padding=1, bias=False)
        for layer in (narrow, widen):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        self.narrow = nn.Sequential(narrow, nn.BatchNorm2d(width))
        self.widen = nn.Sequential(widen, nn.BatchNorm2d(out))
        self.attend = nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid()) if fuses else None

    def forward(self, own: Tensor, behind: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the map as the teacher's [batch, out, *grid], and what the stage before is fused with."""
        fused: Tensor = self.narrow(own)
        if self.attend is not None and behind is not None:
            behind = F.interpolate(behind, size=fused.shape[2:], mode="nearest")
            weights: Tensor = self.attend(torch.cat([fused, behind], dim=1))
            fused = weights[:, :1] * fused + weights[:, 1:] * behind
        if tuple(fused.shape[2:]) != self.grid:
            fused = F.interpolate(fused, size=self.grid, mode="nearest")
        return self.widen(fused), fused
