"""Whether what a study compares was trained alike, as far as nobody said how.

A recipe of a training is chosen by the method and the number of steps, so the commands of one step may have several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdtool.study.comparisons import groups_of
from kdtool.study.recipe import SEED, Command, Recipe
from kdtool.study.record import Record
from kdtool.training.recipes.reading import typed
from kdtool.utils.strict_json import dumps

RECIPE = "recipe"

SETTINGS = (RECIPE, "optimizer", "batch_size")
"""What the row of a checkpoint holds of the options of its training."""

OWN = ("epochs", "seed", "accumulate")
"""The options that differ without a choice between ways of training: --hours and the memory set some of them."""

BY_CANDIDATE = "compress"
"""The command that takes a recipe for each of its candidates, and trains the best one."""

MOST_OPTIONS = 3
"""How many options a note names."""

Settings = Mapping[str, Any]


def same_settings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings that tables leave out, since all rows that have them have the same."""
    return [key for key in SETTINGS if len({str(row[key]) for row in rows if key in row}) < 2]


def notes(recipe: Recipe, record: Record, done: set[str]) -> list[str]:
    """Return a line for each step, and each pair of compared steps, that was trained in several ways nobody typed.

    Steps are compared if they are the same command, such as ``distill``. What an earlier release made tells nothing.
    """
    trainings: dict[str, Settings] = {
        command.name: training
        for command in recipe.commands
        if command.name in done and (training := record.commands[command.name].get("training"))
    }
    known = [
        command for command in recipe.commands if command.name in trainings and command.template[0] != BY_CANDIDATE
    ]
    found: dict[str, None] = {}
    for step in dict.fromkeys(command.step for command in known):
        of_step = [command for command in known if command.step == step]
        ways = _ways(of_step, trainings)
        if len(ways) > 1:
            found[f"{step}: {_told({way: _label(ways, way) for way in ways})}"] = None
    for pair in _pairs(recipe, known):
        ways = _ways(pair, trainings)
        if len(ways) > 1:
            found[_told({way: members[0].step for way, members in ways.items()})] = None
    return [*found]


def _pairs(recipe: Recipe, known: Sequence[Command]) -> Iterator[tuple[Command, Command]]:
    """Yield the pairs of commands of several steps that are compared, and could be trained alike."""
    names = {command.name for command in known}
    for comparison in recipe.comparisons:
        for group in groups_of(recipe, comparison) if comparison.along is None else ():
            for number, b in enumerate(group):
                for a in group[:number]:
                    if {a.name, b.name} <= names and a.template[0] == b.template[0]:
                        yield a, b


def _ways(commands: Sequence[Command], trainings: Mapping[str, Settings]) -> dict[str, list[Command]]:
    """Return the commands by the way in which each was trained, as text; one way if they differ in what was typed."""
    said = {
        word.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        for command in commands
        for word in command.template
        if word.startswith("--")
    }
    rows = [trainings[command.name] for command in commands]
    keys = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if key not in (*OWN, *(said - {RECIPE})) and len({dumps(row.get(key), sort_keys=True) for row in rows}) > 1
    ]
    if RECIPE in keys:  # the others follow from it; without others two recipes come to the same
        keys = [RECIPE] if len(keys) > 1 and RECIPE not in said else []
    ways: dict[str, list[Command]] = {}
    for command, row in zip(commands, rows, strict=True):
        ways.setdefault(" ".join(_typed(key, row.get(key)) for key in keys[:MOST_OPTIONS]), []).append(command)
    return ways


def _typed(key: str, value: Any) -> str:
    if value is None:
        return f"no {key.replace('_', '-')}"
    return typed(key, ",".join(map(str, value)) if isinstance(value, list) else value)


def _label(ways: Mapping[str, Sequence[Command]], way: str) -> str:
    """Return what tells the commands of one way from the others: values of one key of the matrix, or else of all."""
    keys = dict.fromkeys(key for commands in ways.values() for command in commands for key in command.values)
    for key in keys:
        values = {one: {command.values.get(key) for command in commands} for one, commands in ways.items()}
        if sum(map(len, values.values())) == len(set[Any]().union(*values.values())):
            own = dict.fromkeys(command.values[key] for command in ways[way])
            return " and ".join(value if isinstance(value, str) else f"{key}={value}" for value in own)
    first, *more = (
        " ".join(f"{key}={value}" for key, value in command.values.items() if key != SEED) for command in ways[way]
    )
    return f"{first} and others" if set(more) - {first} else first


def _told(labels: Mapping[str, str]) -> str:
    """Return a note of what was trained in which way, the labels by the way."""
    (way, label), *others = labels.items()
    rest = ", ".join(f"{other} with {one}" for one, other in others)
    cure = "name one with --recipe" if RECIPE in way else "give these options"
    return f"{label} {'were' if ' and ' in label else 'was'} trained with {way}, {rest}; {cure} to compare alike"
