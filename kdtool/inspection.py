"""Look at checkpoints: what they are, how well they do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kdtool.checkpoint import Checkpoint
from kdtool.engine import Engine
from kdtool.evaluation import evaluate as evaluate_module
from kdtool.inputs import data_for, load
from kdtool.settings import Training
from kdtool.structure.size import measure

Given = str | Path | Checkpoint


def inspect(checkpoint: Given) -> dict[str, Any]:
    """Return what a checkpoint is, as plain data.

    The keys are ``path``, ``source``, ``parameters``, ``nonzero``, ``macs`` (multiply-accumulates of one image),
    ``compression`` (parameters of the first teacher over its own), ``file_bytes``, ``classes``, ``input`` (channels,
    height, width), ``architecture``, ``data``, ``metrics`` and ``history`` (each entry's ``line`` is its command).
    """
    found = load(checkpoint)
    size = measure(found.network)
    return {
        "path": str(found.path) if found.path else None,
        "source": found.architecture.spec,
        **size,
        "compression": found.compression(size["parameters"]),
        "file_bytes": found.path.stat().st_size if found.path else None,
        "classes": found.architecture.classes,
        "input": list(found.architecture.input),
        "architecture": plain(found.architecture.as_data()),
        "data": found.data.as_data() if found.data else None,
        "metrics": found.metrics,
        "history": plain(found.history),
    }


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it; a tensor becomes its shape."""
    if isinstance(value, torch.Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype)}
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def evaluate(
    checkpoints: Given | Sequence[Given], *, split: str = "test", device: str = "auto", **options: Any
) -> list[dict[str, Any]]:
    """Return for each checkpoint its ``checkpoint`` (path), ``split``, ``accuracy``, ``error``, ``loss``, ``images``.

    ``options`` are those of `DataOptions`, where they differ from what the checkpoint remembers.

    Raises:
        Error: a checkpoint remembers no data set, or the data set has no such split.
    """
    given = [checkpoints] if isinstance(checkpoints, str | Path | Checkpoint) else list(checkpoints)
    engine = Engine(Training(device=device, precision="fp32"), 0)
    rows = []
    for one in given:
        found = load(one)
        data = data_for(found, options)
        metrics = evaluate_module(engine.place(found.module), data.split(split), engine=engine)
        rows.append({"checkpoint": str(found.path) if found.path else found.architecture.spec, **metrics})
    return rows
