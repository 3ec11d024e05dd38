"""The results of a study: a row for each checkpoint, comparisons of pairs, and means over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kdtool.errors import Error
from kdtool.study.recipe import ONNX, SEED, Command, Recipe
from kdtool.study.record import Record
from kdtool.utils.progress import progress, say
from kdtool.utils.statistics import mean_interval
from kdtool.utils.strict_json import load

STEP_KEYS = ("step", "a", "b")
"""The keys that name the steps of a row."""

SEARCHED = ("kl",)
"""What a row holds of the last epoch of a search, beside the number of its epochs."""


def numbers_of(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the numbers of a checkpoint or an ONNX file for the table of a study, and the description of its images.

    A checkpoint that was trained has ``seconds``, those of the training by the clock, in all processes that took part.
    The description is that of the images which the command itself read, None if there were none.

    Raises:
        Error: the checkpoint cannot be read.
    """
    from kdtool.models.checkpoint import read

    if path.suffix == ONNX:
        return _numbers_of_export(path), None
    checkpoint = read(path)
    size = checkpoint.history[-1]["size"]
    numbers = {
        "accuracy": checkpoint.metric("test", "accuracy"),
        "error": checkpoint.metric("test", "error"),
        "val_accuracy": checkpoint.metric("val", "accuracy"),
        **{key: size[key] for key in ("parameters", "nonzero", "macs")},
        "compression": checkpoint.compression(size["parameters"]),
    }
    epochs = (checkpoint.history[-1].get("training") or {}).get("epochs")
    if epochs is not None:  # of each phase; with --hours the number that was found
        numbers["epochs"] = epochs
    models, search = (checkpoint.history[-1].get(key) for key in ("rows", "search"))
    numbers |= {
        key: used for key in ("seconds", "cpu_seconds") if (used := checkpoint.history[-1].get(key)) is not None
    }
    if models:
        numbers["models"] = models
    if isinstance(search, list) and search:  # the epochs of a search for a structure
        numbers |= {"search_epochs": len(search), **{f"search_{key}": search[-1].get(key) for key in SEARCHED}}
    return numbers, checkpoint.history[-1].get("data") or None


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
        # A row that an earlier version recorded may lack a number.
        numbers = [row[key] for row in group if isinstance(row.get(key), int | float)]
        if len(numbers) == len(group):
            _, low, high = mean_interval(numbers) or (None, None, None)
            mean = fmean(numbers)
            count = mean.is_integer() and all(isinstance(number, int) for number in numbers)
            mean_row |= {key: int(mean) if count else mean, f"{key}_low": low, f"{key}_high": high}
    return mean_row


def comparisons(recipe: Recipe, record: Record, done: set[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compare the checkpoints of the commands in ``done`` as the recipe asks, for all values of the matrix.

    Pairs that were compared before and have not changed are not compared again.

    Returns:
        The rows of the pairs, and the rows of the comparisons that failed.
    """
    groups = [
        [command for command in group if command.name in done]
        for steps in recipe.comparisons
        for group in _groups(recipe, steps)
    ]
    rows: dict[str, dict[str, Any]] = {}
    failed: dict[str, dict[str, Any]] = {}
    with progress("compare", len(groups)) as advance:
        for group in groups:
            pairs = list(itertools.combinations(group, 2))
            try:
                if any(_key(*pair) not in rows and _recorded(record, *pair) is None for pair in pairs):
                    _compare(record, group)
            except Error as error:
                name = " ".join(command.name for command in group)
                failed[name] = {"name": f"compare {name}", "error": str(error), "log": None}
                say(f"compare {name}: {error}")
            for a, b in pairs:
                numbers = _recorded(record, a, b)
                if numbers is not None:
                    rows[_key(a, b)] = {"a": a.step, "b": b.step, "values": {**a.values, **b.values}, **numbers}
            advance()
    return list(rows.values()), list(failed.values())


def _groups(recipe: Recipe, steps: Sequence[str]) -> list[list[Command]]:
    """Return a group for each combination of the matrix's values: one command of each step."""
    by_step = [[command for command in recipe.commands if command.step == step] for step in steps]
    used = {key for commands in by_step for command in commands for key in command.values}
    keys = [key for key in recipe.matrix if key in used]
    groups = []
    for chosen in itertools.product(*(recipe.matrix[key] for key in keys)):
        values = dict(zip(keys, chosen, strict=True))
        groups.append(
            [command for commands in by_step for command in commands if command.values.items() <= values.items()]
        )
    return groups


def _compare(record: Record, group: Sequence[Command]) -> None:
    from kdtool.commands.compare import compare

    first, second, *more = (record.file(command) for command in group)
    result = compare(first, second, *more)
    pairs = result.get("pairs") or [result]
    for (a, b), pair in zip(itertools.combinations(group, 2), pairs, strict=True):
        numbers = {key: pair[key] for key in ("classified_differently", "agreement", "l2", "l2_sum")}
        record.comparisons[_key(a, b)] = {"made": _hashes(record, a, b), **numbers, "mcnemar_p": pair["mcnemar"]["p"]}
    record.save()


def _recorded(record: Record, a: Command, b: Command) -> dict[str, Any] | None:
    """Return the numbers of an earlier comparison of the same two checkpoints, or None."""
    entry = record.comparisons.get(_key(a, b))
    if entry is None or entry["made"] != _hashes(record, a, b):
        return None
    return {key: value for key, value in entry.items() if key != "made"}


def _hashes(record: Record, a: Command, b: Command) -> list[str]:
    return [record.commands[command.name]["made"] for command in (a, b)]


def _key(a: Command, b: Command) -> str:
    return f"{a.name} {b.name}"
