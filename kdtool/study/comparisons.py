"""The comparisons of a study: pairs of steps, or of the values of one key of the matrix."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from kdtool.errors import Error
from kdtool.study.recipe import Command, Comparison, Recipe, Value
from kdtool.study.record import Record
from kdtool.utils.progress import progress, say


def comparisons(recipe: Recipe, record: Record, done: set[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compare the checkpoints of the commands in ``done`` as the recipe asks, for all values of the matrix.

    Pairs that were compared before and have not changed are not compared again.

    Returns:
        The rows of the pairs, and the rows of the comparisons that failed.
    """
    groups = [
        [command for command in group if command.name in done]
        for comparison in recipe.comparisons
        for group in groups_of(recipe, comparison)
    ]
    failed: dict[str, dict[str, Any]] = {}
    with progress("compare", len(groups)) as advance:
        for group in groups:
            try:
                if any(_recorded(record, *pair) is None for pair in itertools.combinations(group, 2)):
                    _compare(record, group)
            except Error as error:
                name = " ".join(command.name for command in group)
                failed[name] = {"name": f"compare {name}", "error": str(error), "log": None}
                say(f"compare {name}: {error}")
            advance()
    return recorded(recipe, record, done), list(failed.values())


def recorded(recipe: Recipe, record: Record, done: set[str]) -> list[dict[str, Any]]:
    """Return the rows of the pairs among the commands in ``done`` that were compared before; nothing is compared."""
    rows: dict[str, dict[str, Any]] = {}
    for comparison in recipe.comparisons:
        for group in groups_of(recipe, comparison):
            for a, b in itertools.combinations([command for command in group if command.name in done], 2):
                numbers = _recorded(record, a, b)
                if numbers is not None:
                    names = _names(a, b, comparison.along)
                    rows[_key(a, b)] = {**names, **_difference(record, a, b), **numbers}
    return list(rows.values())


def groups_of(recipe: Recipe, comparison: Comparison) -> Iterator[list[Command]]:
    """Yield the commands that are compared with each other, for each combination of the other values of the matrix.

    They are one of each step; or with ``along`` those of one step, in the order of the key's values.
    """
    by_step = [[command for command in recipe.commands if command.step == step] for step in comparison.steps]
    for steps in [by_step] if comparison.along is None else [[commands] for commands in by_step]:
        used = {key for commands in steps for command in commands for key in command.values} - {comparison.along}
        keys = [key for key in recipe.matrix if key in used]
        found = [_by_values(commands, keys) for commands in steps]
        for chosen in itertools.product(*(recipe.matrix[key] for key in keys)):
            values = dict(zip(keys, chosen, strict=True))
            yield [
                command for own, commands in found for command in commands.get(tuple(values[key] for key in own), ())
            ]


def _by_values(
    commands: Sequence[Command], keys: Sequence[str]
) -> tuple[list[str], dict[tuple[Value, ...], list[Command]]]:
    """Return which of the keys the commands of one step have, and the commands by the values of these keys."""
    own = [key for key in keys if key in commands[0].values]
    found: dict[tuple[Value, ...], list[Command]] = {}
    for command in commands:
        found.setdefault(tuple(command.values[key] for key in own), []).append(command)
    return own, found


def _names(a: Command, b: Command, along: str | None) -> dict[str, Any]:
    """Return what names a pair: its steps, or its step and the two values of a key, and the other values."""
    if along is None:
        return {"a": a.step, "b": b.step, "values": {**a.values, **b.values}}
    values = {key: value for key, value in a.values.items() if key != along}
    names = {side: f"{along}={command.values[along]}" for side, command in (("a", a), ("b", b))}
    return {"step": a.step, **names, "along": along, "values": values}


def _difference(record: Record, a: Command, b: Command) -> dict[str, float]:
    """Return the test accuracy of ``b`` minus that of ``a``; nothing if one was not measured."""
    first, second = (record.commands[command.name]["row"].get("accuracy") for command in (a, b))
    return {} if first is None or second is None else {"accuracy_difference": second - first}


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
