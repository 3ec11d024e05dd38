"""kdtool: make a trained vision network small.

This is the public API that plugins and notebooks import. Nothing here imports torch before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kdtool.errors import Error, UsageError, nearest
from kdtool.hookspecs import hookimpl
from kdtool.methods import Dataset, Distiller, Exporter, Pruner, Refiner, Source, make
from kdtool.options import nested, option

if TYPE_CHECKING:
    from kdtool.api import compare, distill, evaluate, export, inspect, load, prune, refine, run_study, teacher
    from kdtool.architecture import Architecture, Network
    from kdtool.checkpoint import Checkpoint
    from kdtool.data import RawData, RawSplit
    from kdtool.latency import measure_latency
    from kdtool.run import Run
    from kdtool.structure.depth import drop_blocks
    from kdtool.structure.stages import stages
    from kdtool.structure.width import halve_widths
    from kdtool.training import Step

_LAZY = {
    "Architecture": "kdtool.architecture",
    "Network": "kdtool.architecture",
    "Checkpoint": "kdtool.checkpoint",
    "RawData": "kdtool.data",
    "RawSplit": "kdtool.data",
    "Run": "kdtool.run",
    "Step": "kdtool.training",
    "compare": "kdtool.api",
    "distill": "kdtool.api",
    "drop_blocks": "kdtool.structure.depth",
    "evaluate": "kdtool.api",
    "export": "kdtool.api",
    "halve_widths": "kdtool.structure.width",
    "inspect": "kdtool.api",
    "load": "kdtool.api",
    "measure_latency": "kdtool.latency",
    "prune": "kdtool.api",
    "refine": "kdtool.api",
    "run_study": "kdtool.api",
    "stages": "kdtool.structure.stages",
    "teacher": "kdtool.api",
}

__all__ = [
    "Architecture",
    "Checkpoint",
    "Dataset",
    "Distiller",
    "Error",
    "Exporter",
    "Network",
    "Pruner",
    "RawData",
    "RawSplit",
    "Refiner",
    "Run",
    "Source",
    "Step",
    "UsageError",
    "compare",
    "distill",
    "drop_blocks",
    "evaluate",
    "export",
    "halve_widths",
    "hookimpl",
    "inspect",
    "load",
    "make",
    "measure_latency",
    "nearest",
    "nested",
    "option",
    "prune",
    "refine",
    "run_study",
    "stages",
    "teacher",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'kdtool' has no attribute {name!r}")
