"""The costs of an exported file beside those of its teacher: accuracy, size and latency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdtool.data.splits import Data
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.size import measure
from kdtool.training.engine import engine_for
from kdtool.training.evaluate import VALIDATION_BATCH, evaluate_once
from kdtool.training.options import Training

COLUMNS = ("file", "float", "teacher")
"""The networks side by side: the written file, the float file if this one has a lower precision, and the teacher."""

ROWS = (
    "accuracy",
    "error",
    "parameters",
    "nonzero",
    "macs",
    "file_bytes",
    "gzip_bytes",
    "latency_p50_ms",
    "latency_p90_ms",
)


PAIRED = "latency_p50_ms"
"""The cost whose ratio comes from pairs of samples."""


def side_by_side(
    result: Mapping[str, Any], size: Mapping[str, Any], teacher: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return a row for each cost, with the ``file``, the ``float`` file if there is one, and the ``teacher``.

    ``difference`` and ``ratio`` are those of the file to the teacher, or without one to the float file. The ratio of
    the median latencies is that of paired samples, not that of the two numbers beside it. A cost that no exporter
    measured has no row. ``result`` is what the exporter returned, ``size`` that of `measure`; ``teacher`` has
    ``accuracy``, ``error`` and the sizes, None where they are not known.
    """
    latency, of_float = result.get("latency") or {}, result.get("float")
    columns: dict[str, dict[str, Any]] = {"file": {**_costs(result), **size, **_times(latency.get("student"))}}
    ratio = latency.get("ratio")
    if of_float is not None:
        beside = of_float.get("latency") or {}
        columns["float"] = {**_costs(of_float), **size, **_times(beside.get("teacher"))}
        ratio = beside.get("ratio") if teacher is None else ratio
    if teacher is not None:
        columns["teacher"] = {**teacher, **(result.get("teacher") or {}), **_times(latency.get("teacher"))}
    rows = []
    for name in ROWS:
        row = {column: costs.get(name) for column, costs in columns.items()}
        if row["file"] is None:
            continue
        other = row.get("teacher" if teacher is not None else "float")
        if other is not None:
            row["difference"] = row["file"] - other
            row["ratio"] = ratio if name == PAIRED else row["file"] / other if other else None
        rows.append({"of": name, **row})
    return rows


def _costs(about: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = about.get("accuracy") or {}
    return {
        **{name: accuracy.get(name) for name in ("accuracy", "error")},
        **{name: about.get(name) for name in ("file_bytes", "gzip_bytes")},
    }


def _times(latency: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if latency is None else {f"latency_{name}": latency.get(name) for name in ("p50_ms", "p90_ms")}


def teacher_costs(network: Network, checkpoint: Checkpoint | None, data: Data | None) -> dict[str, Any]:
    """Return the size of a teacher, and its ``accuracy`` and ``error`` on the test split.

    A teacher that was ``rebuilt`` has no checkpoint, and its accuracy is None, as without ``data``, those of the
    teacher. What the checkpoint records of the same images is not measured again.
    """
    costs: dict[str, Any] = {"accuracy": None, "error": None, **measure(network)}
    if checkpoint is None or data is None or data.test is None:
        return costs
    own = checkpoint.data
    now = data.spec.splits.get("test")
    if own is not None and now is not None and own.splits.get("test") == now:
        recorded = {name: checkpoint.metric("test", name) for name in ("accuracy", "error")}
        if None not in recorded.values():
            return costs | recorded
    engine = engine_for(Training(device="cpu", precision="fp32"), VALIDATION_BATCH, network)
    metrics = evaluate_once(network, data.test, engine)
    return costs | {name: metrics[name] for name in ("accuracy", "error")}
