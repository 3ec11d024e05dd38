"""Pairs of watched layers, and the layers that are learnt to make a student's map comparable with its teacher's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from kdtool.architecture import Network
from kdtool.errors import UsageError
from kdtool.structure.taps import Tap, stage_taps, tap

# Vision transformers put up to so many tokens (class, distillation, registers) before those of the image.
MAX_PREFIX = 5


@dataclass(frozen=True)
class Pair:
    """A layer of the student and the layer of the teacher that it is compared with."""

    student: Tap
    teacher: Tap

    @property
    def alike(self) -> bool:
        """Whether both outputs have one shape and layout."""
        return (self.student.shape, self.student.layout) == (self.teacher.shape, self.teacher.layout)


def pairs_of(student: Network, teacher: Network, taps: Sequence[str] | None = None) -> list[Pair]:
    """Return the pairs that ``taps`` names (``STUDENT=TEACHER``, or ``NAME`` where both call it so), else the ends of
    the stages of both networks in their order.

    Raises:
        UsageError: there is no such layer, or they have different numbers of stages.
    """
    if taps is not None:
        named = [(left, right or left) for left, _, right in (one.partition("=") for one in taps)]
        return [Pair(tap(student, left), tap(teacher, right)) for left, right in named]
    ours, theirs = stage_taps(student), stage_taps(teacher)
    if len(ours) != len(theirs):
        raise UsageError(
            f"the student has {len(ours)} stages ({_paths(ours)}) and the teacher {len(theirs)} ({_paths(theirs)}); "
            "pair layers by hand with --taps student=teacher,..."
        )
    return [Pair(*both) for both in zip(ours, theirs, strict=True)]


def _paths(taps: Sequence[Tap]) -> str:
    return ", ".join(one.path for one in taps)


def adapter(pair: Pair) -> nn.Module:
    """Return a layer that gives the student's output the shape of its teacher's: none where it has it already."""
    return nn.Identity() if pair.alike else Adapter(pair)


class Adapter(nn.Module):
    """A 1x1 convolution to the teacher's channels, and interpolation to its resolution.

    Maps the student's output to [batch, channels, height, width] of the teacher's, see `as_maps`.
    """

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.pair = pair
        self.size = _grid(pair.teacher)
        self.mix = nn.Conv2d(pair.student.channels, pair.teacher.channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the student's output as a map of the teacher's shape."""
        maps: Tensor = self.mix(as_maps(x, self.pair.student))
        if tuple(maps.shape[2:]) == self.size:
            return maps
        resized: Tensor = F.interpolate(maps, size=self.size, mode="bilinear", align_corners=False)
        return resized


def compared(pair: Pair, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return an adapted student's output and its teacher's in one shape."""
    return student, teacher if pair.alike else as_maps(teacher, pair.teacher)


def as_maps(x: Tensor, tap: Tap) -> Tensor:
    """Return an output as [batch, channels, height, width].

    Tokens become a square; class tokens and the like, which stand before it, are left out.
    """
    if tap.layout == "nchw":
        return x
    if tap.layout == "nhwc":
        return x.permute(0, 3, 1, 2)
    height, width = _grid(tap)
    columns: Tensor = x[:, x.shape[1] - height * width :].transpose(1, 2)
    grid: Tensor = columns.unflatten(2, (height, width))
    return grid


def _grid(tap: Tap) -> tuple[int, int]:
    """Return height and width of an output as a map."""
    if tap.layout != "tokens":
        height, width = tap.resolution
        return height, width
    (count,) = tap.resolution
    side = math.isqrt(count)
    # A few tokens more than a square are class tokens; otherwise there is no square, but a column.
    return (side, side) if count - side * side <= MAX_PREFIX else (count, 1)
