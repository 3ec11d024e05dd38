"""The options that say who the student is and which settings are searched."""

from __future__ import annotations

from kdtool.plugins.options import Options, option
from kdtool.plugins.registry import nested
from kdtool.plugins.search import Search
from kdtool.surgery.refiner import Refiner


class SearchOptions(Options):
    """Say which of the method's options are chosen by validation."""

    search: Search | None = option(
        None, help="values to choose from in short trainings, by validation: temperature=1,2,4,8"
    )


class StudentOptions(Options):
    """Say who the student is, for methods that do not make their own."""

    student: str | None = option(None, help="student: SOURCE:NAME, or a checkpoint to go on from")
    refiner: Refiner | None = nested("refiners", help="make the student from the teacher with this refiner")
