"""What was tried, as rows: costs, accuracy, what dominates what; and the charts of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kdtool.compression.candidates import FLOAT, Candidate, Proposals
from kdtool.compression.costs import Cost, Limits
from kdtool.plotting.frontier import Axis, Tried, draw_frontier

COSTS = ("latency_ratio", "file_bytes", "macs")
"""The costs that a network can be better in."""

COLUMNS = (
    *("model", "precision", "val_accuracy", "epochs", "latency_ms", "latency_ratio", "file_bytes", "macs"),
    *("parameters", "within", "dominated_by", "note"),
)
"""The keys of a row."""


def rows(
    proposals: Proposals, chosen: Sequence[Candidate], trainings: Sequence[Mapping[str, Any]], teacher: float
) -> list[dict[str, Any]]:
    """Return a row for the teacher and for every candidate, the best first; ``teacher`` is its validation accuracy.

    ``trainings`` are those of `Trials.done`; the longest of a candidate counts. ``within`` says whether the costs are
    within the budget. ``dominated_by`` is the most accurate of the networks that are at least as good in accuracy and
    in every cost and better in one; empty for those on the frontier, and for those that were not trained.
    """
    latest = {row["setting"]: row for row in trainings}
    table = [_row("teacher", FLOAT, proposals.teacher, proposals.limits, teacher, None)]
    for candidate in [*chosen, *(one for one in proposals.candidates if one not in chosen), *proposals.beyond]:
        trained = latest.get(candidate.name, {})
        row = _row(
            candidate.name,
            candidate.precision,
            candidate.cost,
            proposals.limits,
            trained.get("accuracy") if trained.get("checkpoint") else None,
            trained.get("epochs") if candidate.trains else None,
        )
        row["note"] = candidate.note or ("" if row["within"] is not False else "beyond the budget")
        table.append(row)
    return settle(table)


def settle(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with ``dominated_by``, the best first."""
    ordered = sorted(
        table, key=lambda row: -math.inf if row["val_accuracy"] is None else row["val_accuracy"], reverse=True
    )
    return [{**row, "dominated_by": dominating(row, ordered)} for row in ordered]


def dominating(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """Return the first of the rows that dominates one, or an empty text."""
    if row["val_accuracy"] is None:
        return ""
    for other in others:
        if other is row or other["val_accuracy"] is None:
            continue
        pairs = [(other[key], row[key]) for key in COSTS if other[key] is not None and row[key] is not None]
        pairs.append((-other["val_accuracy"], -row["val_accuracy"]))
        if all(a <= b for a, b in pairs) and any(a < b for a, b in pairs):
            return str(other["model"])
    return ""


def _row(
    name: str, precision: str, cost: Cost | None, limits: Limits, accuracy: float | None, epochs: int | None
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    known = {} if cost is None else cost.as_data()
    return row | {
        "model": name,
        "precision": precision,
        "val_accuracy": accuracy,
        "epochs": epochs,
        **known,
        "within": None if cost is None else limits.load(cost) <= 1,
        "dominated_by": "",
        "note": "",
    }


def charts(
    table: Sequence[Mapping[str, Any]], proposals: Proposals, winner: str, select: str = "accuracy"
) -> dict[str, str]:
    """Return the frontier as SVG by the cost: accuracy on the validation images against latency, size and MACs.

    They are apart, so that each can be read on a narrow page. ``select`` says which accuracy it is.
    """
    limits, teacher = proposals.limits, proposals.teacher
    milliseconds = limits.latency_ratio * (teacher.latency_ms or math.nan)
    axes = [
        Axis("latency", "latency in ms", _finite(milliseconds)),
        Axis("size", "ONNX file in MB", _finite(limits.file_bytes / 1e6)),
        Axis("macs", "MACs in millions", _finite(limits.macs / 1e6)),
    ]
    tried = [
        Tried(
            row["model"],
            f"{row['model'].split(' ')[0]}{'' if row['precision'] == FLOAT else ' ' + row['precision']}",
            row["val_accuracy"],
            {
                "latency": row["latency_ms"],
                "size": row["file_bytes"] and row["file_bytes"] / 1e6,
                "macs": row["macs"] and row["macs"] / 1e6,
            },
            bool(row["dominated_by"]),
            "winner" if row["model"] == winner else "teacher" if row["model"] == "teacher" else "",
        )
        for row in table
        if row["val_accuracy"] is not None
    ]
    return {axis.key: draw_frontier(tried, [axis], f"validation {select.replace('-', ' ')}") for axis in axes}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
