"""Pairs of watched layers, and the layers that are learnt to make a student's map comparable with its teacher's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from kdtool.errors import UsageError
from kdtool.features.taps import Tap, stage_taps, tap
from kdtool.models.architecture import Network


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


def match_stages(
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


def last_stage_pair(student: Network, teacher: Network, taps: Sequence[str] | None = None) -> list[Pair]:
    """Return the ends of the last stages of both networks, what their classifiers see, as a pair of maps of any size.

    ``taps`` names pairs instead, see `pairs_of`.

    Raises:
        Error: a network has no stages, or there is no layer of that name.
    """
    if taps is not None:
        return match_stages(student, teacher, taps)
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
