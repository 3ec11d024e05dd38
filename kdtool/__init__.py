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
from kdtool.pruning import ChannelPruner, MaskPruner, numbered
from kdtool.schedule import Schedule

if TYPE_CHECKING:
    from kdtool.adapters import Pair, last_maps, matched, pairs_of, unadapted
    from kdtool.api import compare, distill, evaluate, export, inspect, load, prune, refine, report, run_study, teacher
    from kdtool.architecture import Architecture, Network
    from kdtool.checkpoint import Checkpoint
    from kdtool.data import RawData, RawSplit
    from kdtool.files import gzip_bytes
    from kdtool.gate_picture import draw_gates, draw_search
    from kdtool.guide import Guide
    from kdtool.latency import measure_latency
    from kdtool.masking import prunable, sparsity, without
    from kdtool.pupil import Beside
    from kdtool.reuse import reuse_classifier
    from kdtool.run import Run
    from kdtool.settling import settle
    from kdtool.sources import check_name, create_like
    from kdtool.step import Step
    from kdtool.structure.compound import reach_budget
    from kdtool.structure.dependencies import Scores
    from kdtool.structure.depth import drop_blocks
    from kdtool.structure.gate_budget import check_budget, close_until, keep_last, least
    from kdtool.structure.gate_costs import GateCosts
    from kdtool.structure.gate_map import gate_map
    from kdtool.structure.gate_removal import remove_closed, with_fresh_weights
    from kdtool.structure.gates import Gated, gate_channels
    from kdtool.structure.importance import filters, over_filters, over_norms, relative, sum_over_filters
    from kdtool.structure.removal import remove_channels
    from kdtool.structure.scales import scaled_like
    from kdtool.structure.segment import Part, cuttable, parts_of
    from kdtool.structure.stages import stages
    from kdtool.structure.taps import Tap, stage_taps, tap
    from kdtool.structure.width import halve_widths

_LAZY = {
    "Architecture": "kdtool.architecture",
    "Beside": "kdtool.pupil",
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
    "Scores": "kdtool.structure.dependencies",
    "Step": "kdtool.step",
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
    "filters": "kdtool.structure.importance",
    "gate_channels": "kdtool.structure.gates",
    "gate_map": "kdtool.structure.gate_map",
    "gzip_bytes": "kdtool.files",
    "halve_widths": "kdtool.structure.width",
    "inspect": "kdtool.api",
    "keep_last": "kdtool.structure.gate_budget",
    "last_maps": "kdtool.adapters",
    "least": "kdtool.structure.gate_budget",
    "load": "kdtool.api",
    "matched": "kdtool.adapters",
    "measure_latency": "kdtool.latency",
    "over_filters": "kdtool.structure.importance",
    "over_norms": "kdtool.structure.importance",
    "pairs_of": "kdtool.adapters",
    "parts_of": "kdtool.structure.segment",
    "prunable": "kdtool.masking",
    "prune": "kdtool.api",
    "reach_budget": "kdtool.structure.compound",
    "refine": "kdtool.api",
    "relative": "kdtool.structure.importance",
    "remove_channels": "kdtool.structure.removal",
    "remove_closed": "kdtool.structure.gate_removal",
    "report": "kdtool.api",
    "reuse_classifier": "kdtool.reuse",
    "run_study": "kdtool.api",
    "scaled_like": "kdtool.structure.scales",
    "settle": "kdtool.settling",
    "sparsity": "kdtool.masking",
    "stage_taps": "kdtool.structure.taps",
    "stages": "kdtool.structure.stages",
    "sum_over_filters": "kdtool.structure.importance",
    "tap": "kdtool.structure.taps",
    "teacher": "kdtool.api",
    "unadapted": "kdtool.adapters",
    "with_fresh_weights": "kdtool.structure.gate_removal",
    "without": "kdtool.masking",
}

__all__ = [
    "Architecture",
    "Beside",
    "Budget",
    "ChannelPruner",
    "Checkpoint",
    "Dataset",
    "Distiller",
    "Error",
    "Exporter",
    "GateCosts",
    "Gated",
    "Guide",
    "MaskPruner",
    "Network",
    "Pair",
    "Part",
    "Pruner",
    "RawData",
    "RawSplit",
    "Refiner",
    "Run",
    "Schedule",
    "Scores",
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
    "filters",
    "gate_channels",
    "gate_map",
    "gzip_bytes",
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
    "numbered",
    "option",
    "over_filters",
    "over_norms",
    "pairs_of",
    "parts_of",
    "prunable",
    "prune",
    "reach_budget",
    "refine",
    "relative",
    "remove_channels",
    "remove_closed",
    "report",
    "reuse_classifier",
    "run_study",
    "scaled_like",
    "settle",
    "sparsity",
    "stage_taps",
    "stages",
    "sum_over_filters",
    "tap",
    "teacher",
    "unadapted",
    "with_fresh_weights",
    "without",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'kdtool' has no attribute {name!r}")
