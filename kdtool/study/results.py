"""The results of a study: a row for each checkpoint, and means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kdtool.errors import Error
from kdtool.study.alike import SETTINGS
from kdtool.study.recipe import ONNX, SEED, Command
from kdtool.study.record import Record
from kdtool.utils.statistics import mean_interval
from kdtool.utils.strict_json import load, text_hash

STEP_KEYS = ("step", "a", "b")
"""The keys that name the steps of a row."""

FLEETING = ("date", "versions", "seconds", "cpu_seconds")
"""What the history of a checkpoint holds that differs when the same is made again."""

SEARCHED = ("kl",)
"""What a row holds of the last epoch of a search, beside the number of its epochs."""


def numbers_of(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the numbers of a checkpoint or an ONNX file for the table of a study, and the description of its images.

    A checkpoint has ``content``, a hash of all that it holds but for times and versions. One that was trained has
    ``seconds``, those of the training by the clock, in all processes that took part, and ``training``, all options of
    its training. The description is that of the images which the command itself read,
    None if there were none.

    Raises:
        Error: the checkpoint cannot be read.
    """
    from kdtool.commands.history import chosen_by_search
    from kdtool.models.checkpoint import content_of, read

    if path.suffix == ONNX:
        return _numbers_of_export(path), None
    checkpoint = read(path)
    made = checkpoint.history[-1]
    size = made["size"]
    numbers = {
        "accuracy": checkpoint.metric("test", "accuracy"),
        "error": checkpoint.metric("test", "error"),
        "val_accuracy": checkpoint.metric("val", "accuracy"),
        **{key: size[key] for key in ("parameters", "nonzero", "macs")},
        "compression": checkpoint.compression(size["parameters"]),
    }
    training, models, search = made.get("training") or {}, made.get("rows"), made.get("search")
    # Earlier releases only recorded what was asked for, for each phase.
    measured = {
        "epochs": made.get("trained_epochs", training.get("epochs")),
        **{key: made.get(key) for key in ("trial_epochs", "seconds", "cpu_seconds")},
        **{key: training.get(key) or "none" for key in SETTINGS if key in training},
        "chosen": chosen_by_search(made),
    }
    numbers |= {key: value for key, value in measured.items() if value is not None}
    tensors = {"weights": None, "early": None}  # they are in the fingerprint
    numbers["content"] = text_hash(_lasting(content_of(checkpoint) | tensors))
    if training:
        numbers["training"] = training
    if models:
        numbers["models"] = models
    if isinstance(search, list) and search:  # the epochs of a search for a structure
        numbers |= {"search_epochs": len(search), **{f"search_{key}": search[-1].get(key) for key in SEARCHED}}
    return numbers, made.get("data") or None


def _lasting(value: Any) -> Any:
    """Return plain data without what is `FLEETING`."""
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if key not in FLEETING}
    return [*map(_lasting, value)] if isinstance(value, list | tuple) else value


def _numbers_of_export(path: Path) -> dict[str, Any]:
    """Return the numbers of an ONNX file, from what the command that made it printed."""
    try:
        costs = load(path.with_suffix(".json"))
        accuracy, latency, lower = (costs.get(name) or {} for name in ("accuracy", "latency", "quantised"))
        return {
            **{name: accuracy.get(name) for name in ("accuracy", "error")},
            "val_accuracy": lower.get("val_accuracy"),
            **{name: costs[name] for name in ("parameters", "nonzero", "macs", "compression", "file_bytes")},
            "gzip_bytes": costs.get("gzip_bytes"),
            "latency_ms": (latency.get("student") or {}).get("p50_ms"),
            "latency_ratio": latency.get("ratio"),
        }
    except (OSError, ValueError, LookupError, AttributeError) as error:
        raise Error(f"{path.with_suffix('.json')}: is damaged or missing ({error}); run the study again") from error


def row_of(command: Command, record: Record) -> dict[str, Any]:
    """Return the row of a finished command."""
    entry = record.commands[command.name]
    names = {"name": command.name, "step": command.step, "values": command.values}
    return {**names, **entry["row"], "seconds": entry["seconds"], "checkpoint": str(record.file(command))}


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row of means for each group of rows that differ only in their seed.

    ``seeds`` is the number of rows in the group. Each number, such as ``error``, is the mean over seeds; ``error_low``
    and ``error_high`` are the ends of its 95 % interval by Student's t, None if there is only one seed.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if SEED in row["values"]:
            groups.setdefault(repr(_key_without_seed(row)), []).append(row)
    return [_mean(group) for group in groups.values()]


def _key_without_seed(row: dict[str, Any]) -> dict[str, Any]:
    values = {key: value for key, value in row["values"].items() if key != SEED}
    return {**{key: row[key] for key in STEP_KEYS if key in row}, "values": values}


def _mean(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mean_row = {**_key_without_seed(group[0]), "seeds": len(group)}
    for key in group[0]:
        # The mean of p-values is not a p-value.
        if key == "mcnemar_p":
            continue
        if key in (*SETTINGS, "along"):  # settings, not measurements
            values = [row.get(key) for row in group]
            mean_row |= {key: values[0]} if values.count(values[0]) == len(values) else {}
            continue
        # A row that an earlier version recorded may lack a number.
        numbers = [row[key] for row in group if isinstance(row.get(key), int | float)]
        if len(numbers) == len(group):
            _, low, high = mean_interval(numbers) or (None, None, None)
            mean = fmean(numbers)
            count = mean.is_integer() and all(isinstance(number, int) for number in numbers)
            mean_row |= {key: int(mean) if count else mean, f"{key}_low": low, f"{key}_high": high}
    return mean_row
