"""Pairs of watched layers, and the layers that are learnt to make a student's map comparable with its teacher's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from kdtool.architecture import Network
from kdtool.errors import UsageError
from kdtool.structure.taps import Tap, stage_taps, tap


@dataclass(frozen=True)
class Pair:
    """A layer of the student and the layer of the teacher that it is compared with.

    Outputs of one shape and layout are compared as they are, unless ``as_map`` says that all are compared as maps
    [batch, channels, height, width], see `as_maps`; others always are.
    """

    student: Tap
    teacher: Tap
    as_map: bool = False
    owner: str = ""
    """Whose pair it is, where several losses are summed."""

    @property
    def alike(self) -> bool:
        """Whether both outputs have one shape and layout."""
        return (self.student.shape, self.student.layout) == (self.teacher.shape, self.teacher.layout)

    def of_student(self, output: Tensor) -> Tensor:
        """Return an output of the student as an adapter is given it."""
        return output if self.alike and not self.as_map else as_maps(output, self.student)

    def of_teacher(self, output: Tensor) -> Tensor:
        """Return an output of the teacher as a loss is given it."""
        return output if self.alike and not self.as_map else as_maps(output, self.teacher)


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


def matched(
    student: Network, teacher: Network, taps: Sequence[str] | None = None, *, stem: bool = False, least: int = 1
) -> list[Pair]:
    """Return pairs of stages at whose ends both networks make maps of one resolution, compared as maps.

    Of several stages of one resolution the last are paired with the last. Where that pairs less than half of the stages
    of the network with fewer, or makes fewer than ``least`` pairs, stages are paired by their relative depth. ``stem``
    says whether the stems count; ``taps`` names pairs instead, see `pairs_of`.

    Raises:
        Error: a network has no stages, or there is no layer of that name.
    """
    if taps is not None:
        return [dataclasses.replace(pair, as_map=True) for pair in pairs_of(student, teacher, taps)]
    ours, theirs = stage_taps(student, stem=stem), stage_taps(teacher, stem=stem)
    found, enough = _by_resolution(ours, theirs), max(least, min(len(ours), len(theirs)) / 2)
    return [Pair(*both, as_map=True) for both in (found if len(found) >= enough else _by_depth(ours, theirs))]


def last_maps(student: Network, teacher: Network, taps: Sequence[str] | None = None) -> list[Pair]:
    """Return the ends of the last stages of both networks, what their classifiers see, as a pair of maps of any size.

    ``taps`` names pairs instead, see `pairs_of`.

    Raises:
        Error: a network has no stages, or there is no layer of that name.
    """
    if taps is not None:
        return matched(student, teacher, taps)
    return [Pair(stage_taps(student)[-1], stage_taps(teacher)[-1], as_map=True)]


def _by_resolution(ours: Sequence[Tap], theirs: Sequence[Tap]) -> list[tuple[Tap, Tap]]:
    pairs: list[tuple[Tap, Tap]] = []
    for grid in dict.fromkeys(one.grid for one in ours):
        here, there = ([one for one in taps if one.grid == grid] for taps in (ours, theirs))
        count = min(len(here), len(there))
        pairs += zip(here[len(here) - count :], there[len(there) - count :], strict=True)
    return pairs


def _by_depth(ours: Sequence[Tap], theirs: Sequence[Tap]) -> list[tuple[Tap, Tap]]:
    count = min(len(ours), len(theirs))
    numbers = range(1, count + 1)
    return [(ours[one * len(ours) // count - 1], theirs[one * len(theirs) // count - 1]) for one in numbers]


def _paths(taps: Sequence[Tap]) -> str:
    return ", ".join(one.path for one in taps)


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


def as_maps(x: Tensor, tap: Tap) -> Tensor:
    """Return an output as [batch, channels, height, width].

    Tokens become a square; class tokens and the like, which stand before it, are left out.
    """
    if tap.layout == "nchw":
        return x
    if tap.layout == "nhwc":
        return x.permute(0, 3, 1, 2)
    height, width = tap.grid
    columns: Tensor = x[:, x.shape[1] - height * width :].transpose(1, 2)
    grid: Tensor = columns.unflatten(2, (height, width))
    return grid
