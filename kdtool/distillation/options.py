"""The options of a distillation that belong to no method: the student, and the search for settings."""

from __future__ import annotations

from kdtool.errors import UsageError
from kdtool.plugins.options import Options, option
from kdtool.plugins.registry import nested
from kdtool.plugins.search import Search
from kdtool.surgery.refiner import Refiner


class SearchOptions(Options):
    """Options of the choice between settings of the method by validation."""

    search: Search | None = option(
        None, help="values to choose from in short trainings, by validation: temperature=1,2,4,8"
    )


class StudentOptions(Options):
    """Options that give the student, for methods that do not make it themselves."""

    student: str | None = option(None, help="student: SOURCE:NAME, or a checkpoint to go on from")
    refiner: Refiner | None = nested("refiners", help="make the student from the teacher with this refiner")
    quantize: str = option(
        "off", choices=("off", "int8"), help="train for this precision: the student rounds as its file will, see export"
    )
    quantize_only: tuple[str, ...] = option((), help="layers that round, such as layer3,layer4.*; unset: all that can")
    quantize_skip: tuple[str, ...] = option((), help="layers that do not round, such as conv1,layer4.*")

    def __post_init__(self) -> None:
        """Check that the options go together."""
        super().__post_init__()
        for name in ("only", "skip"):
            if getattr(self, f"quantize_{name}") and self.quantize == "off":
                raise UsageError(f"--quantize-{name}: belongs to --quantize; add --quantize int8")


def check_stem(stem: str | None, *, made: bool) -> None:
    """Check that ``--stem`` is not given for a student that is ``made`` from the teacher.

    Raises:
        UsageError: it is.
    """
    if stem is not None and made:
        raise UsageError("--stem: belongs to a student that is built by its name, --student SOURCE:NAME; leave it out")
