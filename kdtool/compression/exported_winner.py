"""The winner as it is exported: its file of 8 bits, and what it costs and reaches there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from kdtool.commands.export import export
from kdtool.compression.candidates import FLOAT, Candidate
from kdtool.compression.costs import (
    NEAR,
    SUFFIX,
    Limits,
    Meter,
    device_options,
    exporter_for,
    scratch,
    supported,
    told,
)
from kdtool.compression.options import QUANTISED, BudgetOptions
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.quantisation.fake import quantiser_of
from kdtool.utils.files import beside

SECONDS = 10.0
"""How long the winner's latency is measured."""

PAIRS = 100
"""Pairs of samples of a further measurement; fewer if they take longer."""

AGAIN = 2
"""How often a latency that is beyond the budget is measured once more, since other programs change it."""

FLOAT_ENDS = ("auto", "off")
"""How the first and the last layer are treated, in the order of the attempts: in float they may exceed the budget."""


def file_of(target: Path) -> Path:
    """Return the ONNX file of 8 bits that goes with a checkpoint."""
    return beside(target, QUANTISED)


def as_exported(
    winner: Candidate, checkpoint: Checkpoint, teacher: Network, budget: BudgetOptions, limits: Limits
) -> dict[str, Any] | None:
    """Return the costs of a winner in float32 as ``kdtool export`` measures them; None if no file has to be written.

    If the first measurement of a latency is beyond the budget, the median of three counts.
    """
    timed = budget.max_latency is not None and budget.latency_from is None
    if winner.precision != FLOAT or not (timed or budget.max_size is not None):
        return None
    device = {name: value for name, value in device_options(budget).items() if name != "name"}
    how: dict[str, Any] = {"latency": True, "latency_seconds": SECONDS, **device} if timed else {}
    with scratch() as folder:
        file = folder / f"winner{SUFFIX}"
        costs = exporter_for(**how).export(checkpoint.network, file, metadata=told(checkpoint), teacher=teacher)
        costs = _settled(costs, file, teacher, budget, limits)
    return {name: costs.get(name) for name in ("file_bytes", "latency")}  # the file itself is gone


def write_quantised(
    winner: Candidate,
    checkpoint: Checkpoint,
    teacher: Checkpoint,
    file: Path,
    budget: BudgetOptions,
    limits: Limits,
) -> dict[str, Any] | None:
    """Write the ONNX ``file`` of a winner of 8 bits and return its costs; None for other winners.

    It is quantised in the best way; if that is beyond the budget, with the first and the last layer in 8 bits too. A
    latency that is still beyond it is measured again, the median of three counts.
    """
    if winner.precision == FLOAT:
        return None
    device = device_options(budget)
    name = device.pop("name")
    if budget.latency_from is None:
        device |= {"latency_seconds": SECONDS}
    else:
        device = {"latency": False}
    costs: dict[str, Any] = {}
    rounds = quantiser_of(checkpoint.module) is not None  # then its training has set how it is quantised
    for ends in FLOAT_ENDS if supported(float_ends=None) and not rounds else (None,):
        extra: dict[str, Any] = {} if ends is None else {"float_ends": ends}
        costs = export(checkpoint, name, output=file, force=True, against=teacher, int8=True, **device, **extra)
        if max(excess(costs, limits)) <= 1:
            break
    return _settled(costs, file, teacher.network, budget, limits)


def _settled(
    costs: dict[str, Any], file: Path, teacher: Network, budget: BudgetOptions, limits: Limits
) -> dict[str, Any]:
    """Return the costs of a file; if a latency is beyond the budget, with the median of its ratio and of further ones.

    The student's time is then this share of the teacher's, and the interval of the first measurement goes.
    """
    latency = costs.get("latency")
    if not latency or excess(costs, limits)[0] <= NEAR:
        return costs
    with scratch() as folder:
        meter = Meter(teacher, budget, folder, seconds=SECONDS, pairs=PAIRS)
        again = [meter.ratio(file) for _ in range(AGAIN)]
    ratio = median([latency["ratio"], *again])
    of_student = latency["student"]
    median_ms = ratio * latency["teacher"]["p50_ms"]
    own = {**of_student, "p50_ms": median_ms, "p90_ms": of_student["p90_ms"] * median_ms / of_student["p50_ms"]}
    changed = {"ratio": ratio, "ratio_low": None, "ratio_high": None, "student": own}
    return {**costs, "latency": {**latency, **changed, "ratios": [latency["ratio"], *again]}}


def excess(costs: Mapping[str, Any], limits: Limits) -> tuple[float, float]:
    """Return the latency and the bytes of an exported file over their limits."""
    ratio = (costs.get("latency") or {}).get("ratio")
    return float(ratio or 0.0) / limits.latency_ratio, float(costs.get("file_bytes") or 0) / limits.file_bytes
