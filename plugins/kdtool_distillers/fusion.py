"""ReviewKD's attention-based fusion (ABF) of a student's maps, from the last stage to the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from kdtool.features import Pair

# The authors' limit on the channels in which maps are fused.
MAX_WIDTH = 512


class Fusion(nn.Module):
    """Fuse each of the student's maps with those of all later stages, and give it the shape of the teacher's map."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__()
        width = min(MAX_WIDTH, pairs[-1].student.channels)
        last = len(pairs) - 1
        self.blocks = nn.ModuleList(
            Fuse(pair.student.channels, width, pair.teacher.channels, pair.teacher.grid, fuses=number < last)
            for number, pair in enumerate(pairs)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the fused maps, in the order of the stages; ``maps`` are [batch, channels, height, width]."""
        later: Tensor | None = None
        outputs = []
        for block, own in zip(reversed(self.blocks), reversed(maps), strict=True):
            output, later = block(own, later)
            outputs.append(output)
        return outputs[::-1]


class Fuse(nn.Module):
    """Fuse one map [batch, channels, height, width] with the fused maps of the later stages (ABF)."""

    def __init__(self, channels: int, width: int, out: int, grid: tuple[int, int], *, fuses: bool) -> None:
        super().__init__()
        self.grid = grid
        narrow, widen = nn.Conv2d(channels, width, 1, bias=False), nn.Conv2d(width, out, 3, padding=1, bias=False)
        for layer in (narrow, widen):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        self.narrow = nn.Sequential(narrow, nn.BatchNorm2d(width))
        self.widen = nn.Sequential(widen, nn.BatchNorm2d(out))
        self.attend = nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid()) if fuses else None

    def forward(self, own: Tensor, later: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the fused map in the teacher's shape [batch, out, *grid], and in the width that the stage before
        fuses."""
        fused: Tensor = self.narrow(own)
        if self.attend is not None and later is not None:
            later = F.interpolate(later, size=fused.shape[2:], mode="nearest")
            weights: Tensor = self.attend(torch.cat([fused, later], dim=1))
            fused = weights[:, :1] * fused + weights[:, 1:] * later
        if tuple(fused.shape[2:]) != self.grid:
            fused = F.interpolate(fused, size=self.grid, mode="nearest")
        return self.widen(fused), fused
