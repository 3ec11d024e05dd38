"""Look at checkpoints: what they are, how well they do."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kdtool.commands.inputs import data_for, load
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.size import measure
from kdtool.surgery.depth.observe import output_shapes
from kdtool.surgery.depth.stages import stages_of
from kdtool.training.engine import engine_for
from kdtool.training.evaluate import VALIDATION_BATCH
from kdtool.training.evaluate import evaluate as evaluate_module
from kdtool.training.options import Training
from kdtool.utils.files import gzip_bytes

Given = str | Path | Checkpoint


def inspect(checkpoint: Given, *, stages: bool = False) -> dict[str, Any]:
    """Return what a checkpoint is, as plain data.

    The keys are ``path``, ``source``, ``parameters``, ``nonzero``, ``macs`` (multiply-accumulates of one image),
    ``compression`` (parameters of the first teacher over its own), ``file_bytes``, ``classes``, ``input`` (channels,
    height, width), ``architecture``, ``data``, ``metrics`` and ``history`` (each entry's ``line`` is its command).
    With ``stages`` there is a list of that name as well, empty where the network has none: each stage's ``name``,
    ``blocks`` (paths, that of the head first), ``parameters`` (of each block), whether it is ``dense``, and
    ``output``, the shape of what it returns for one image (None where that is not known).

    Raises:
        Error: ``checkpoint`` cannot be read, or its stages cannot be found.
    """
    found = load(checkpoint)
    size = measure(found.network)
    return {
        "path": str(found.path) if found.path else None,
        "source": found.architecture.spec,
        **size,
        "compression": found.compression(size["parameters"]),
        "file_bytes": found.path.stat().st_size if found.path else None,
        **({"gzip_bytes": gzip_bytes(found.path)} if found.path and found.masked else {}),
        **({"early_epoch": found.early.epoch} if found.early else {}),
        "classes": found.architecture.classes,
        "input": list(found.architecture.input),
        "architecture": plain(found.architecture.as_data()),
        "data": found.data.as_data() if found.data else None,
        "metrics": found.metrics,
        "history": plain(found.history),
        **({"stages": _stages(found.network)} if stages else {}),
    }


def _stages(network: Network) -> list[dict[str, Any]]:
    found = stages_of(network)
    ends = {stage.name: stage.name if stage.dense else stage.blocks[-1] for stage in found}
    outputs = output_shapes(network.module, network.architecture.input, ends.values())
    return [{**plain(dataclasses.asdict(stage)), "output": outputs.get(ends[stage.name])} for stage in found]


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
    rows = []
    for one in given:
        found = load(one)
        engine = engine_for(Training(device=device, precision="fp32"), VALIDATION_BATCH, found.network)
        data = data_for(found, options)
        metrics = evaluate_module(engine.place(copy.deepcopy(found.module)), data.split(split), engine=engine)
        rows.append({"checkpoint": str(found.path) if found.path else found.architecture.spec, **metrics})
    return rows
