"""Layers that are learnt to give a student's map the shape of its teacher's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kdtool.features.pairs import Pair


class Each(nn.ModuleList):
    """One layer for each map."""

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps, each after its layer."""
        return [layer(one) for layer, one in zip(self, maps, strict=True)]


class Parts(nn.ModuleList):
    """Some adapters, each for so many of the maps."""

    def __init__(self, parts: Iterable[tuple[int, nn.Module]]) -> None:
        """Take how many maps each adapter is given, and the adapter."""
        counts, adapters = zip(*parts, strict=True)
        super().__init__(adapters)
        self.counts: tuple[int, ...] = counts

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps, each after its adapter."""
        found, begin = [], 0
        for adapters, count in zip(self, self.counts, strict=True):
            found += adapters(maps[begin : begin + count])
            begin += count
        return found


def adapter(pair: Pair) -> nn.Module:
    """Return a layer that gives the student's output the shape of its teacher's: none where it has it already."""
    return nn.Identity() if pair.alike else Adapter(pair)


def unadapted(pairs: Iterable[Pair]) -> nn.Module:
    """Return what leaves all maps as they are, for losses that compare maps of different shapes."""
    return Each(nn.Identity() for _ in pairs)


class Adapter(nn.Module):
    """A 1x1 convolution to the teacher's channels, and interpolation to its resolution.

    Maps [batch, channels, height, width] of the student's shape to those of the teacher's.
    """

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.size = pair.teacher.grid
        self.mix = nn.Conv2d(pair.student.channels, pair.teacher.channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the student's output as a map of the teacher's shape."""
        maps: Tensor = self.mix(x)
        if tuple(maps.shape[2:]) == self.size:
            return maps
        resized: Tensor = F.interpolate(maps, size=self.size, mode="bilinear", align_corners=False)
        return resized
