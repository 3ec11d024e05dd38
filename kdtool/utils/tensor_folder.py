"""Checkpoints as folders that others can read: the weights as safetensors, the rest as JSON, nothing as a pickle.

``model.safetensors`` holds the weights, under the names of the state dict. ``kdtool.json`` holds everything else, and
the order of the weights. Tensors in it, such as those of a resized buffer, are in ``kdtool.safetensors``, which is
written only if there are any.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kdtool.errors import Error
from kdtool.utils.files import write_text
from kdtool.utils.kinds import DESCRIPTION, TENSORS, WEIGHTS
from kdtool.utils.strict_json import load
from kdtool.utils.tensor_files import safe_load, safetensors_bytes

MARK = "$"
"""The beginning of the only key of an object that stands for what JSON does not have."""


def write_folder(folder: Path, content: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write the content of a checkpoint, see `kdtool.models.checkpoint.content_of`, into a folder that exists.

    ``metadata`` are texts for the header of the file of weights.

    Raises:
        Error: a file cannot be written.
    """
    from safetensors.torch import save

    weights: dict[str, Tensor] = content["weights"]
    tensors: dict[str, Tensor] = {}
    about = _encoded({**content, "weights": list(weights)}, tensors)
    try:
        # Not save_file, whose files only their owner may read.
        (folder / WEIGHTS).write_bytes(safetensors_bytes(weights, {"format": "pt", **(metadata or {})}))
        if tensors:
            (folder / TENSORS).write_bytes(save(tensors))
    except OSError as error:
        raise Error(f"{folder}: cannot be written: {error.strerror or error}") from error
    write_text(folder / DESCRIPTION, json.dumps(about, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_folder(folder: Path) -> dict[str, Any]:
    """Return the content that `write_folder` wrote; nothing in the files is ever executed.

    Raises:
        Error: a file is missing, damaged or of another form.
    """
    path = folder / DESCRIPTION
    try:
        about = load(path)
    except (OSError, ValueError) as error:
        raise Error(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'it is no JSON'}") from error
    tensors = _tensors(folder / TENSORS) if (folder / TENSORS).exists() else {}
    try:
        content = _decoded(about, tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Error(f"{path}: damaged: an entry is malformed; copy or download it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("weights"), list):
        raise Error(f"{path}: damaged: it does not name the weights; copy or download it again")
    names, weights = content["weights"], _tensors(folder / WEIGHTS)
    if not all(isinstance(name, str) for name in names) or set(names) != set(weights) or len(names) != len(weights):
        raise Error(f"{folder}: damaged: {WEIGHTS} has other weights than {DESCRIPTION} names; download both again")
    return {**content, "weights": {name: weights[name] for name in names}}


def _tensors(path: Path) -> dict[str, Tensor]:
    content = safe_load(path)
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise Error(f"{path}: holds no tensors by name; copy or download it again")
    return content


def _encoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON has it; its tensors are added to ``tensors`` under numbers."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {f"{MARK}tensor": name}
    if isinstance(value, tuple):
        return {f"{MARK}tuple": [_encoded(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_encoded(item, tensors) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith(MARK) for key in value):
            return {key: _encoded(item, tensors) for key, item in value.items()}
        return {f"{MARK}dict": [[_encoded(key, tensors), _encoded(item, tensors)] for key, item in value.items()]}
    if isinstance(value, float) and not math.isfinite(value):
        return {f"{MARK}float": str(value)}
    return value


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `_encoded` wrote."""
    if isinstance(value, list):
        return [_decoded(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)).startswith(MARK):
        ((kind, inner),) = value.items()
        if kind == f"{MARK}tensor":
            return tensors[inner]
        if kind == f"{MARK}tuple":
            return tuple(_decoded(list(inner), tensors))
        if kind == f"{MARK}float":
            return float(inner)
        if kind == f"{MARK}dict":
            return {_decoded(key, tensors): _decoded(item, tensors) for key, item in inner}
        raise ValueError(kind)
    return {key: _decoded(item, tensors) for key, item in value.items()}
