"""Trainable layers that give a student's output the shape of its teacher's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kdtool.features.pairs import Pair


class Each(nn.ModuleList):
    """One layer per output, applied to a list of outputs."""

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs of all layers, in their order."""
        return [layer(x) for layer, x in zip(self, maps, strict=True)]


class Parts(nn.ModuleList):
    """Several adapters, each for a consecutive part of a list of outputs."""

    def __init__(self, parts: Iterable[tuple[int, nn.Module]]) -> None:
        """Combine ``parts``: for each adapter, how many outputs it takes, and the adapter."""
        counts, adapters = zip(*parts, strict=True)
        super().__init__(adapters)
        self.counts: tuple[int, ...] = counts

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs of all adapters, in their order."""
        adapted, begin = [], 0
        for adapters, count in zip(self, self.counts, strict=True):
            adapted += adapters(maps[begin : begin + count])
            begin += count
        return adapted


def adapter(pair: Pair) -> nn.Module:
    """Return a layer that gives the student's output the shape of the teacher's: the identity if they are alike."""
    return nn.Identity() if pair.alike else Adapter(pair)


def unadapted(pairs: Iterable[Pair]) -> nn.Module:
    """Return a module that does not change the outputs, for losses that compare outputs of different shapes."""
    return Each(nn.Identity() for _ in pairs)


class Adapter(nn.Module):
    """A 1x1 convolution to the teacher's channels, then bilinear interpolation to the teacher's resolution.

    Maps [batch, student channels, height, width] to [batch, teacher channels, teacher height, teacher width].
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
