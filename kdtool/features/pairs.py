"""Pairs of a student's and a teacher's layer whose outputs are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from kdtool.errors import UsageError
from kdtool.features.taps import Tap, stage_taps, tap
from kdtool.models.architecture import Network
from kdtool.plugins.method_code import MethodError


@dataclass(frozen=True)
class Pair:
    """A layer of the student and the layer of the teacher that it is compared with.

    Outputs of equal shape and layout are compared unchanged, unless ``as_map`` is set. All others are compared as maps
    [batch, channels, height, width], see `as_maps`.
    """

    student: Tap
    teacher: Tap
    as_map: bool = False
    owner: str = ""
    """The loss that the pair belongs to, if several losses are summed."""

    @property
    def alike(self) -> bool:
        """Whether both outputs have the same shape and layout."""
        return (self.student.shape, self.student.layout) == (self.teacher.shape, self.teacher.layout)

    def of_student(self, output: Tensor) -> Tensor:
        """Return an output of the student in the form that an adapter takes."""
        return output if self.alike and not self.as_map else as_maps(output, self.student)

    def of_teacher(self, output: Tensor) -> Tensor:
        """Return an output of the teacher in the form that a loss takes."""
        return output if self.alike and not self.as_map else as_maps(output, self.teacher)


def pairs_of(student: Network, teacher: Network, taps: Sequence[str] | None = None) -> list[Pair]:
    """Return the pairs that ``taps`` names, or by default the ends of the stages of both networks, in order.

    An entry of ``taps`` is ``STUDENT=TEACHER``, or ``NAME`` for layers of the same name.

    Raises:
        UsageError: there is no such layer, or the networks have different numbers of stages.
        MethodError: ``taps`` is one text.
    """
    if isinstance(taps, str):
        raise MethodError(f"taps are {taps!r}, one text; declare the option as tuple[str, ...] | None")
    if taps is not None:
        names = [(left, right or left) for left, _, right in (entry.partition("=") for entry in taps)]
        return [Pair(tap(student, left), tap(teacher, right)) for left, right in names]
    student_taps, teacher_taps = stage_taps(student), stage_taps(teacher)
    if len(student_taps) != len(teacher_taps):
        raise UsageError(
            f"the student has {len(student_taps)} stages ({_paths(student_taps)}) and the teacher {len(teacher_taps)} "
            f"({_paths(teacher_taps)}); pair layers by hand with --taps student=teacher,..."
        )
    return [Pair(*taps_of_stage) for taps_of_stage in zip(student_taps, teacher_taps, strict=True)]


def match_stages(
    student: Network, teacher: Network, taps: Sequence[str] | None = None, *, stem: bool = False, least: int = 1
) -> list[Pair]:
    """Return pairs of stages whose outputs have the same resolution, to be compared as maps.

    If several stages have the same resolution, the last ones are paired. If this pairs fewer than half of the stages of
    the network with fewer stages, or fewer than ``least``, stages are paired by their relative depth instead. ``stem``
    says whether the stems count as stages; ``taps`` names the pairs instead, see `pairs_of`.

    Raises:
        Error: a network has no stages, or there is no layer of that name.
    """
    if taps is not None:
        return [dataclasses.replace(pair, as_map=True) for pair in pairs_of(student, teacher, taps)]
    student_taps, teacher_taps = stage_taps(student, stem=stem), stage_taps(teacher, stem=stem)
    matched = _by_resolution(student_taps, teacher_taps)
    if len(matched) < max(least, min(len(student_taps), len(teacher_taps)) / 2):
        matched = _by_depth(student_taps, teacher_taps)
    return [Pair(student_tap, teacher_tap, as_map=True) for student_tap, teacher_tap in matched]


def last_stage_pair(student: Network, teacher: Network, taps: Sequence[str] | None = None) -> list[Pair]:
    """Return the pair of the last stages, whose outputs the classifiers read; the resolutions may differ.

    ``taps`` names the pairs instead, see `pairs_of`.

    Raises:
        Error: a network has no stages, or there is no layer of that name.
    """
    if taps is not None:
        return match_stages(student, teacher, taps)
    return [Pair(stage_taps(student)[-1], stage_taps(teacher)[-1], as_map=True)]


def _by_resolution(student_taps: Sequence[Tap], teacher_taps: Sequence[Tap]) -> list[tuple[Tap, Tap]]:
    pairs: list[tuple[Tap, Tap]] = []
    for grid in dict.fromkeys(layer.grid for layer in student_taps):
        students, teachers = ([layer for layer in taps if layer.grid == grid] for taps in (student_taps, teacher_taps))
        count = min(len(students), len(teachers))
        pairs += zip(students[len(students) - count :], teachers[len(teachers) - count :], strict=True)
    return pairs


def _by_depth(student_taps: Sequence[Tap], teacher_taps: Sequence[Tap]) -> list[tuple[Tap, Tap]]:
    """Pair the last taps, and before them those at equal fractions of both networks' stages."""
    count = min(len(student_taps), len(teacher_taps))

    def evenly(taps: Sequence[Tap]) -> list[Tap]:
        return [taps[number * len(taps) // count - 1] for number in range(1, count + 1)]

    return list(zip(evenly(student_taps), evenly(teacher_taps), strict=True))


def _paths(taps: Sequence[Tap]) -> str:
    return ", ".join(layer.path for layer in taps)


def as_maps(x: Tensor, tap: Tap) -> Tensor:
    """Return an output of ``tap`` as [batch, channels, height, width].

    Tokens become a square; class tokens and the like, which come before those of the image, are dropped.
    """
    if tap.layout == "nchw":
        return x
    if tap.layout == "nhwc":
        return x.permute(0, 3, 1, 2)
    height, width = tap.grid
    columns: Tensor = x[:, x.shape[1] - height * width :].transpose(1, 2)
    grid: Tensor = columns.unflatten(2, (height, width))
    return grid
