"""What a study came to: a row for each checkpoint, pairs compared, and means over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kdtool.errors import Error
from kdtool.study.recipe import SEED, Command, Recipe
from kdtool.study.record import Record
from kdtool.utils.progress import progress, say
from kdtool.utils.statistics import mean_interval

WHO = ("step", "a", "b")
"""What says whose a row is, beside the values of the matrix."""


def described(checkpoint: Path) -> dict[str, Any]:
    """Return the numbers of a checkpoint that stand in a study's table.

    Raises:
        Error: it cannot be read.
    """
    from kdtool.models.checkpoint import read

    found = read(checkpoint)
    size = found.history[-1]["size"]
    return {
        "accuracy": found.metric("test", "accuracy"),
        "error": found.metric("test", "error"),
        "val_accuracy": found.metric("val", "accuracy"),
        **{key: size[key] for key in ("parameters", "nonzero", "macs")},
        "compression": found.compression(size["parameters"]),
    }


def row_of(command: Command, record: Record) -> dict[str, Any]:
    """Return the row of a command that is done."""
    entry = record.commands[command.name]
    about = {"name": command.name, "step": command.step, "values": command.values}
    return {**about, **entry["row"], "seconds": entry["seconds"], "checkpoint": str(record.checkpoint(command.name))}


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that differ in nothing but their seed as one, each number as its mean over seeds.

    ``seeds`` says how many there are. Beside the number ``error`` stand ``error_low`` and ``error_high``, its 95 %
    interval by Student's t; None where there is one seed alone.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if SEED in row["values"]:
            groups.setdefault(repr(_who(row)), []).append(row)
    return [_mean(group) for group in groups.values()]


def _who(row: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in row["values"].items() if key != SEED}
    return {**{key: row[key] for key in WHO if key in row}, "values": rest}


def _mean(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    made = {**_who(group[0]), "seeds": len(group)}
    for key in group[0]:
        # The mean of probabilities of a test is no such probability.
        if key == "mcnemar_p":
            continue
        numbers = [row[key] for row in group if isinstance(row[key], int | float)]
        if len(numbers) == len(group):
            _, low, high = mean_interval(numbers) or (None, None, None)
            mean = fmean(numbers)
            count = mean.is_integer() and all(isinstance(number, int) for number in numbers)
            made |= {key: int(mean) if count else mean, f"{key}_low": low, f"{key}_high": high}
    return made


def comparisons(recipe: Recipe, record: Record, done: set[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compare the checkpoints that a recipe pairs, of those that are ``done``, for all values of the matrix.

    What was compared before and has not changed is not compared again.

    Returns:
        A row for each pair, and what could not be compared.
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
                if any(_key(*pair) not in rows and _known(record, *pair) is None for pair in pairs):
                    _compare(record, group)
            except Error as error:
                name = " ".join(command.name for command in group)
                failed[name] = {"name": f"compare {name}", "error": str(error), "log": None}
                say(f"compare {name}: {error}")
            for a, b in pairs:
                known = _known(record, a, b)
                if known is not None:
                    rows[_key(a, b)] = {"a": a.step, "b": b.step, "values": {**a.values, **b.values}, **known}
            advance()
    return list(rows.values()), list(failed.values())


def _groups(recipe: Recipe, steps: Sequence[str]) -> list[list[Command]]:
    """Return the commands of the steps that belong together: for each choice of values, one of each step."""
    of = [[command for command in recipe.commands if command.step == step] for step in steps]
    used = {key for commands in of for command in commands for key in command.values}
    keys = [key for key in recipe.matrix if key in used]
    groups = []
    for chosen in itertools.product(*(recipe.matrix[key] for key in keys)):
        values = dict(zip(keys, chosen, strict=True))
        groups.append([command for commands in of for command in commands if command.values.items() <= values.items()])
    return groups


def _compare(record: Record, group: Sequence[Command]) -> None:
    from kdtool.commands.compare import compare

    first, second, *more = (record.checkpoint(command.name) for command in group)
    found = compare(first, second, *more)
    pairs = found.get("pairs") or [found]
    for (a, b), pair in zip(itertools.combinations(group, 2), pairs, strict=True):
        numbers = {key: pair[key] for key in ("classified_differently", "agreement", "l2", "l2_sum")}
        record.comparisons[_key(a, b)] = {"made": _made(record, a, b), **numbers, "mcnemar_p": pair["mcnemar"]["p"]}
    record.save()


def _known(record: Record, a: Command, b: Command) -> dict[str, Any] | None:
    """Return what an earlier comparison of the two checkpoints gave."""
    entry = record.comparisons.get(_key(a, b))
    if entry is None or entry["made"] != _made(record, a, b):
        return None
    return {key: value for key, value in entry.items() if key != "made"}


def _made(record: Record, a: Command, b: Command) -> list[str]:
    return [record.commands[command.name]["made"] for command in (a, b)]


def _key(a: Command, b: Command) -> str:
    return f"{a.name} {b.name}"
