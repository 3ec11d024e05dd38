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

if TYPE_CHECKING:
    from kdtool.adapters import Pair, last_maps, matched, pairs_of, unadapted
    from kdtool.api import compare, distill, evaluate, export, inspect, load, prune, refine, run_study, teacher
    from kdtool.architecture import Architecture, Network
    from kdtool.checkpoint import Checkpoint
    from kdtool.data import RawData, RawSplit
    from kdtool.gate_picture import draw_gates, draw_search
    from kdtool.guide import Guide
    from kdtool.latency import measure_latency
    from kdtool.reuse import reuse_classifier
    from kdtool.run import Run
    from kdtool.settling import settle
    from kdtool.sources import check_name, create_like
    from kdtool.structure.compound import reach_budget
    from kdtool.structure.depth import drop_blocks
    from kdtool.structure.gate_budget import check_budget, close_until, keep_last, least
    from kdtool.structure.gate_costs import GateCosts
    from kdtool.structure.gate_map import gate_map
    from kdtool.structure.gate_removal import remove_closed, with_fresh_weights
    from kdtool.structure.gates import Gated, gate_channels
    from kdtool.structure.removal import remove_channels
    from kdtool.structure.segment import Part, cuttable, parts_of
    from kdtool.structure.stages import stages
    from kdtool.structure.taps import Tap, stage_taps
    from kdtool.structure.width import halve_widths
    from kdtool.training import Step

_LAZY = {
    "Architecture": "kdtool.architecture",
    "Checkpoint": "kdtool.checkpoint",
    "GateCosts": "kdtool.structure.gate_costs",
    "Gated": "kdtool.structure.gates",
    "Guide": "kdtool.guide",
    "Network": "kdtool.architecture",
    "Pair": "kdtool.adapters",
    "Part": "kdtool.structure.segment",
    "RawData": "kdtool.data",
    "RawSplit": "kdtool.data",
    "Run": "kdtool.run",
    "Step": "kdtool.training",
    "Tap": "kdtool.structure.taps",
    "check_budget": "kdtool.structure.gate_budget",
    "check_name": "kdtool.sources",
    "close_until": "kdtool.structure.gate_budget",
    "compare": "kdtool.api",
    "create_like": "kdtool.sources",
    "cuttable": "kdtool.structure.segment",
    "distill": "kdtool.api",
    "draw_gates": "kdtool.gate_picture",
    "draw_search": "kdtool.gate_picture",
    "drop_blocks": "kdtool.structure.depth",
    "evaluate": "kdtool.api",
    "export": "kdtool.api",
    "gate_channels": "kdtool.structure.gates",
    "gate_map": "kdtool.structure.gate_map",
    "halve_widths": "kdtool.structure.width",
    "inspect": "kdtool.api",
    "keep_last": "kdtool.structure.gate_budget",
    "last_maps": "kdtool.adapters",
    "least": "kdtool.structure.gate_budget",
    "load": "kdtool.api",
    "matched": "kdtool.adapters",
    "measure_latency": "kdtool.latency",
    "pairs_of": "kdtool.adapters",
    "parts_of": "kdtool.structure.segment",
    "prune": "kdtool.api",
    "reach_budget": "kdtool.structure.compound",
    "refine": "kdtool.api",
    "remove_channels": "kdtool.structure.removal",
    "remove_closed": "kdtool.structure.gate_removal",
    "reuse_classifier": "kdtool.reuse",
    "run_study": "kdtool.api",
    "settle": "kdtool.settling",
    "stage_taps": "kdtool.structure.taps",
    "stages": "kdtool.structure.stages",
    "teacher": "kdtool.api",
    "unadapted": "kdtool.adapters",
    "with_fresh_weights": "kdtool.structure.gate_removal",
}

__all__ = [
    "Architecture",
    "Budget",
    "Checkpoint",
    "Dataset",
    "Distiller",
    "Error",
    "Exporter",
    "GateCosts",
    "Gated",
    "Guide",
    "Network",
    "Pair",
    "Part",
    "Pruner",
    "RawData",
    "RawSplit",
    "Refiner",
    "Run",
    "Source",
    "Step",
    "Tap",
    "UsageError",
    "check_budget",
    "check_name",
    "close_until",
    "compare",
    "create_like",
    "cuttable",
    "distill",
    "draw_gates",
    "draw_search",
    "drop_blocks",
    "evaluate",
    "export",
    "gate_channels",
    "gate_map",
    "halve_widths",
    "hookimpl",
    "inspect",
    "keep_last",
    "last_maps",
    "least",
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
    "remove_closed",
    "reuse_classifier",
    "run_study",
    "settle",
    "stage_taps",
    "stages",
    "teacher",
    "unadapted",
    "with_fresh_weights",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'kdtool' has no attribute {name!r}")
