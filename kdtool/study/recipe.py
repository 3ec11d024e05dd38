"""The recipe of a study: read its steps and matrix from TOML, check them, and unroll them into commands."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdtool.errors import Error, UsageError, nearest
from kdtool.study.tables import check_keys, check_name, check_reference, table_of, tables_of, text_of, words_of
from kdtool.utils.files import slug
from kdtool.utils.strict_json import load_toml

Value = int | float | str

SEED = "seed"
"""The key of the matrix over whose values results are averaged."""

EXPORT, ONNX = "export", ".onnx"
"""The command that measures a checkpoint instead of making one, and the suffix of its files."""

TRUSTING = ("trust", "--trust")
"""The command and the option by which a user allows kdtool to import code; a recipe may be a stranger's."""

MAX_COMMANDS = 10_000
"""The largest number of commands in a study."""

# What a small recipe of a stranger unrolls to is bounded too: the lines of all commands together.
MAX_KEYS, MAX_CHARACTERS = 64, 5_000_000

TAKEN = ("study", "results", "lock")
"""The stems of the files that every study has; what an export measures would be written over ``study.json``."""

LONGEST_FILE = 240
"""The largest number of bytes in the name of a command's file; most file systems take 255, also with ``-last-good``."""

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Command:
    """A step with a value for every placeholder: one command line, which makes one checkpoint or ONNX file."""

    step: str
    values: dict[str, Value]
    """The values of the matrix that this command and the commands before it use, by key."""
    template: tuple[str, ...]
    """The words of the command line with placeholders, without ``-o``."""
    inputs: dict[str, str]
    """The names of the commands whose checkpoints it reads, by step."""

    @property
    def name(self) -> str:
        """The stem of its files' names, such as ``pruned_seed=0_ratio=0.5``."""
        return "_".join([self.step, *(f"{key}={_part(value)}" for key, value in self.values.items())])

    @property
    def suffix(self) -> str:
        """The suffix of the file that it makes."""
        return ONNX if self.template[:1] == (EXPORT,) else ".pt"

    @property
    def file(self) -> str:
        """The name of the file that it makes."""
        return f"{self.name}{self.suffix}"

    def words(self, directory: Path) -> list[str]:
        """Return the words of the command line, with the study's checkpoints in ``directory``."""
        values = {**self.values, **{step: directory / f"{name}.pt" for step, name in self.inputs.items()}}
        return [PLACEHOLDER.sub(lambda match: str(values[match[1]]), word) for word in self.template]


@dataclass(frozen=True)
class Comparison:
    """What is compared in pairs: the steps with each other, or each of them along a key of the matrix."""

    steps: tuple[str, ...]
    along: str | None = None
    """The key whose values are compared, all other values being the same; None: the steps are."""


@dataclass(frozen=True)
class Recipe:
    """A study as planned. Each of the ``commands`` comes after those whose checkpoints it reads."""

    path: Path
    name: str
    directory: Path
    matrix: dict[str, list[Value]]
    commands: tuple[Command, ...]
    comparisons: tuple[Comparison, ...] = ()


@dataclass
class _Step:
    name: str
    template: list[str]
    steps: list[str]
    """The names of the steps whose checkpoints it reads."""
    keys: list[str] = field(default_factory=list)
    """The keys of the matrix on which it depends, in the order of the matrix."""


def read_recipe(path: str | Path, output: str | Path | None = None) -> Recipe:
    """Read a recipe; ``output`` replaces the study's directory that the recipe names.

    Raises:
        UsageError: the file is missing, is not valid TOML, or has a wrong entry, which the message names.
    """
    path = Path(path)
    try:
        content = load_toml(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not valid TOML: {error}") from error
    try:
        return _recipe(path, content, output)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _recipe(path: Path, content: Mapping[str, Any], output: str | Path | None) -> Recipe:
    check_keys(content, "the recipe", ("study", "matrix", "step", "compare"))
    study = table_of(content.get("study", {}), "[study]")
    check_keys(study, "[study]", ("name", "output"))
    texts = {key: text_of(study, key, "[study]") for key in study}
    directory = Path(output) if output is not None else path.parent / texts.get("output", f"{path.stem}.study")
    matrix = _matrix(table_of(content.get("matrix", {}), "[matrix]"))
    steps = _steps(tables_of(content.get("step"), "step"), matrix)
    if not steps:
        raise UsageError("has no [[step]]")
    used = {key for step in steps.values() for key in step.keys}
    for key in matrix:
        if key not in used:
            raise UsageError(f"[matrix]: no step uses {{{key}}}")
    commands = tuple(_commands(steps.values(), matrix))
    for command in commands:
        if len(os.fsencode(command.file)) > LONGEST_FILE:
            raise UsageError(
                f"step {command.step!r}: its files get names of more than {LONGEST_FILE} bytes; use shorter values"
            )
        words = command.words(directory)
        if {words[0], *(word.partition("=")[0] for word in words if word.startswith("--"))} & {*TRUSTING}:
            raise UsageError(f"step {command.step!r}: --trust: is for you to say, not for a recipe; see kdtool trust")
    compared = tables_of(content.get("compare"), "compare")
    comparisons = tuple(_comparison(where, table, steps, matrix) for where, table in compared)
    return Recipe(path, texts.get("name", path.stem), directory, matrix, commands, comparisons)


def _matrix(table: Mapping[str, Any]) -> dict[str, list[Value]]:
    if len(table) > MAX_KEYS:
        raise UsageError(f"[matrix]: has {len(table):,} keys; at most {MAX_KEYS} are allowed")
    for key, values in table.items():
        where = f"[matrix] {key}"
        check_name(key, "[matrix]")
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where}: must be a list of values, such as [0, 1, 2]")
        if len(values) > MAX_COMMANDS:
            raise UsageError(f"{where}: has {len(values):,} values; at most {MAX_COMMANDS:,} are allowed")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, Value):
                raise UsageError(f"{where}: a value must be a number or a text, not {value!r}")
        names = [_part(value) for value in values]
        counts = Counter(names)
        for name, value in zip(names, values, strict=True):
            if not name or len(name) > 60 or counts[name] > 1:
                raise UsageError(
                    f"{where}: {value!r} does not give a file name of its own; use short, different values"
                )
    return dict(table)


def _part(value: Value) -> str:
    """Return a value as a part of a file's name; a number keeps its sign."""
    return slug(value) if isinstance(value, str) else str(value)


def _steps(tables: Iterable[tuple[str, Mapping[str, Any]]], matrix: Mapping[str, Any]) -> dict[str, _Step]:
    """Return the steps by name. A step may only refer to steps above it, so there are no cycles."""
    steps: dict[str, _Step] = {}
    tables = list(tables)
    if len(tables) > MAX_COMMANDS:
        raise UsageError(f"has {len(tables):,} steps; at most {MAX_COMMANDS:,} are allowed")
    all_names = [table.get("name") for _, table in tables]
    for where, table in tables:
        name = text_of(table, "name", where)
        where = f"step {name!r}"
        check_name(name, where)
        if name.lower() in TAKEN:  # some file systems take Study.json and study.json for the same file
            raise UsageError(f"{where}: the study itself has files of this name ({', '.join(TAKEN)}); use another name")
        check_keys(table, where, ("name", "run", "from"))
        if name in steps or name in matrix:
            raise UsageError(
                f"{where}: the name is taken; every step and every key of the matrix needs a name of its own"
            )
        words = words_of(text_of(table, "run", where), where)
        if "from" in table:
            words.insert(1, f"{{{text_of(table, 'from', where)}}}")
            check_reference(words[1][1:-1], steps, all_names, f"{where}: from")
        placeholders = [placeholder for word in words for placeholder in PLACEHOLDER.findall(word)]
        for placeholder in placeholders:
            if placeholder not in matrix:
                check_reference(placeholder, steps, all_names, f"{where}: run: {{{placeholder}}}", matrix)
        for placeholder in placeholders:
            if placeholder in steps and steps[placeholder].template[0] == EXPORT:
                raise UsageError(f"{where}: {placeholder!r} is an export, which makes no checkpoint for other steps")
        sources = list(dict.fromkeys(placeholder for placeholder in placeholders if placeholder in steps))
        keys = {*placeholders, *(key for source in sources for key in steps[source].keys)}
        steps[name] = _Step(name, words, sources, [key for key in matrix if key in keys])
    return steps


def _check_size(steps: Iterable[_Step], matrix: Mapping[str, list[Value]]) -> None:
    """Raise a UsageError if there are too many commands, or too much in their lines."""
    longest = {key: max(len(str(value)) for value in values) for key, values in matrix.items()}
    count = characters = 0
    for step in steps:
        commands, run = math.prod(len(matrix[key]) for key in step.keys), " ".join(step.template)
        longest[step.name] = len(step.name) + sum(len(key) + 2 + longest[key] for key in step.keys)
        count += commands
        characters += commands * (len(run) + sum(longest[name] for name in PLACEHOLDER.findall(run)))
    if count > MAX_COMMANDS:
        raise UsageError(f"[matrix]: makes {count:,} commands; at most {MAX_COMMANDS:,} are allowed")
    if characters > MAX_CHARACTERS:
        raise UsageError(
            f"makes command lines of {characters:,} characters in all; at most {MAX_CHARACTERS:,} are allowed"
        )


def _commands(steps: Iterable[_Step], matrix: Mapping[str, list[Value]]) -> Iterator[Command]:
    steps = list(steps)
    _check_size(steps, matrix)
    keys = {step.name: step.keys for step in steps}
    for step in steps:
        for chosen in itertools.product(*(matrix[key] for key in step.keys)):
            values = dict(zip(step.keys, chosen, strict=True))
            inputs = {
                source: Command(source, {key: values[key] for key in keys[source]}, (), {}).name
                for source in step.steps
            }
            yield Command(step.name, values, tuple(step.template), inputs)


def _comparison(
    where: str, table: Mapping[str, Any], steps: Mapping[str, _Step], matrix: Mapping[str, list[Value]]
) -> Comparison:
    check_keys(table, where, ("of", "along"))
    of, along = table.get("of"), None
    if "along" in table:
        along = text_of(table, "along", where)
        _check_along(along, f"{where}: along", matrix)
    fewest = "two steps" if along is None else "one step"
    if not isinstance(of, list) or len(of) < 1 + (along is None) or not all(isinstance(name, str) for name in of):
        example = '["pruned", "distilled"]; along = "method" compares the values of a key' if along is None else '["a"]'
        raise UsageError(f"{where}: of must be a list of at least {fewest}, such as {example}")
    counts = Counter(of)
    for name in of:
        check_reference(name, steps, [], f"{where}: of")
        if counts[name] > 1:
            raise UsageError(f"{where}: of: {name!r} is listed twice")
        if along is not None and along not in steps[name].keys:
            raise UsageError(f"{where}: along: step {name!r} does not depend on {{{along}}}; leave it out of of")
    return Comparison(tuple(of), along)


def _check_along(key: str, where: str, matrix: Mapping[str, list[Value]]) -> None:
    if key == SEED and key in matrix:
        raise UsageError(
            f"{where}: results are averaged over {SEED!r}, so its values are not compared; name another key"
        )
    if key not in matrix:
        others = [other for other in matrix if other != SEED]
        known = f"; its keys are {', '.join(others)}" if others else ""
        raise UsageError(f"{where}: {key!r} is no key of [matrix]{nearest(key, others, count=1) or known}")
    if len(matrix[key]) < 2:
        raise UsageError(f"{where}: {key!r} has one value, and two are compared; add another to [matrix]")


def option_value(words: Sequence[str], option: str) -> str | None:
    """Return the value of an option in the words of a command, the last one if it is there twice; None without it."""
    value = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
    return value


def in_step(recipe: Recipe, command: Command, error: Error) -> UsageError:
    """Return the error with the recipe and the step named in its message."""
    return UsageError(f"{recipe.path}: step {command.step!r}: {error}")
