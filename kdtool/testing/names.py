"""The check that no option of a method has the name of an option that kdtool has beside it."""

from __future__ import annotations

from kdtool.compression.options import BudgetOptions
from kdtool.data.options import DataOptions
from kdtool.distillation.options import SearchOptions, StudentOptions
from kdtool.models.options import NetworkOptions
from kdtool.plugins.method import Method
from kdtool.plugins.options import Options
from kdtool.training.options import EarlyOptions, InitialOptions, TimeOptions, Training
from kdtool.training.side_by_side.placement import Placement

SETTINGS: dict[str, tuple[type[Options], ...]] = {
    "teachers": (NetworkOptions, DataOptions, Training, TimeOptions, InitialOptions, EarlyOptions),
    "refiners": (DataOptions,),
    "distillers": (StudentOptions, NetworkOptions, DataOptions, Training, TimeOptions, SearchOptions, Placement),
    "pruners": (DataOptions, Training, TimeOptions),
    "exporters": (DataOptions,),
}
"""The settings that the command of a kind takes beside the options of a method."""

ELSEWHERE: dict[str, tuple[type[Options], ...]] = {"distillers": (BudgetOptions,)}
"""The settings of another command that takes the methods of a kind: of ``kdtool compress``."""


def check_names(method: type[Method], *, everywhere: bool = False) -> None:
    """Check that the command of its kind can use a method; ``everywhere`` that the others can too.

    Raises:
        BrokenPlugin: an option would hide one of kdtool, or an exporter is called like one.
    """
    groups = SETTINGS.get(method.kind, ())
    method.check_beside((*groups, *(ELSEWHERE.get(method.kind, ()) if everywhere else ())))
