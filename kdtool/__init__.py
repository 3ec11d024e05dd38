"""kdtool: make a trained vision network small.

This is the public API that plugins and notebooks import. Nothing here imports torch before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kdtool.budget import Budget
from kdtool.errors import Error, UsageError, nearest
from kdtool.hookspecs import hookimpl
from kdtool.methods import Dataset, Distiller, Exporter, Pruner, Refiner, Source, make
from kdtool.options import nested, option
from kdtool.schedule import Schedule

if TYPE_CHECKING:
    from kdtool.adapters import Pair, last_maps, matched, pairs_of, unadapted
    from kdtool.api import compare, distill, evaluate, export, inspect, load, prune, refine, run_study, teacher
    from kdtool.architecture import Architecture, Network
    from kdtool.checkpoint import Checkpoint
    from kdtool.data import RawData, RawSplit
    from kdtool.latency import measure_latency
    from kdtool.pupil import Beside
    from kdtool.reuse import reuse_classifier
    from kdtool.run import Run
    from kdtool.sources import check_name, create_like
    from kdtool.step import Step
    from kdtool.structure.compound import reach_budget
    from kdtool.structure.depth import drop_blocks
    from kdtool.structure.removal import remove_channels
    from kdtool.structure.segment import Part, cuttable, parts_of
    from kdtool.structure.stages import stages
    from kdtool.structure.taps import Tap, stage_taps, tap
    from kdtool.structure.width import halve_widths

_LAZY = {
    "Architecture": "kdtool.architecture",
    "Beside": "kdtool.pupil",
    "Checkpoint": "kdtool.checkpoint",
    "Network": "kdtool.architecture",
    "Pair": "kdtool.adapters",
    "Part": "kdtool.structure.segment",
    "RawData": "kdtool.data",
    "RawSplit": "kdtool.data",
    "Run": "kdtool.run",
    "Step": "kdtool.step",
    "Tap": "kdtool.structure.taps",
    "check_name": "kdtool.sources",
    "compare": "kdtool.api",
    "create_like": "kdtool.sources",
    "cuttable": "kdtool.structure.segment",
    "distill": "kdtool.api",
    "drop_blocks": "kdtool.structure.depth",
    "evaluate": "kdtool.api",
    "export": "kdtool.api",
    "halve_widths": "kdtool.structure.width",
    "inspect": "kdtool.api",
    "last_maps": "kdtool.adapters",
    "load": "kdtool.api",
    "matched": "kdtool.adapters",
    "measure_latency": "kdtool.latency",
    "pairs_of": "kdtool.adapters",
    "parts_of": "kdtool.structure.segment",
    "prune": "kdtool.api",
    "reach_budget": "kdtool.structure.compound",
    "refine": "kdtool.api",
    "remove_channels": "kdtool.structure.removal",
    "reuse_classifier": "kdtool.reuse",
    "run_study": "kdtool.api",
    "stage_taps": "kdtool.structure.taps",
    "stages": "kdtool.structure.stages",
    "tap": "kdtool.structure.taps",
    "teacher": "kdtool.api",
    "unadapted": "kdtool.adapters",
}

__all__ = [
    "Architecture",
    "Beside",
    "Budget",
    "Checkpoint",
    "Dataset",
    "Distiller",
    "Error",
    "Exporter",
    "Network",
    "Pair",
    "Part",
    "Pruner",
    "RawData",
    "RawSplit",
    "Refiner",
    "Run",
    "Schedule",
    "Source",
    "Step",
    "Tap",
    "UsageError",
    "check_name",
    "compare",
    "create_like",
    "cuttable",
    "distill",
    "drop_blocks",
    "evaluate",
    "export",
    "halve_widths",
    "hookimpl",
    "inspect",
    "last_maps",
    "load",
    "make",
    "matched",
    "measure_latency",
    "nearest",
    "nested",
    "option",
    "pairs_of",
    "parts_of",
    "prune",
    "reach_budget",
    "refine",
    "remove_channels",
    "reuse_classifier",
    "run_study",
    "stage_taps",
    "stages",
    "tap",
    "teacher",
    "unadapted",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'kdtool' has no attribute {name!r}")
