"""The recipe of a study: read its steps and matrix from TOML, check them, and unroll them into commands."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdtool.errors import Error, UsageError, nearest
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

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")

TAKEN = ("study", "results", "lock")
"""The stems of the files that every study has; what an export measures would be written over ``study.json``."""

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
        return "_".join([self.step, *(f"{key}={slug(str(value))}" for key, value in self.values.items())])

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
class Recipe:
    """A study as planned. Each of the ``commands`` comes after those whose checkpoints it reads."""

    path: Path
    name: str
    directory: Path
    matrix: dict[str, list[Value]]
    commands: tuple[Command, ...]
    comparisons: tuple[tuple[str, ...], ...] = ()
    """The steps of each comparison."""


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
    _check_keys(content, "the recipe", ("study", "matrix", "step", "compare"))
    study = _table(content.get("study", {}), "[study]")
    _check_keys(study, "[study]", ("name", "output"))
    texts = {key: _text(study, key, "[study]") for key in study}
    directory = Path(output) if output is not None else path.parent / texts.get("output", f"{path.stem}.study")
    matrix = _matrix(_table(content.get("matrix", {}), "[matrix]"))
    steps = _steps(_tables(content.get("step"), "step"), matrix)
    if not steps:
        raise UsageError("has no [[step]]")
    used = {key for step in steps.values() for key in step.keys}
    for key in matrix:
        if key not in used:
            raise UsageError(f"[matrix]: no step uses {{{key}}}")
    commands = tuple(_commands(steps.values(), matrix))
    for command in commands:
        words = command.words(directory)
        if {words[0], *(word.partition("=")[0] for word in words if word.startswith("--"))} & {*TRUSTING}:
            raise UsageError(f"step {command.step!r}: --trust: is for you to say, not for a recipe; see kdtool trust")
    comparisons = tuple(_comparison(where, table, steps) for where, table in _tables(content.get("compare"), "compare"))
    return Recipe(path, texts.get("name", path.stem), directory, matrix, commands, comparisons)


def _matrix(table: Mapping[str, Any]) -> dict[str, list[Value]]:
    for key, values in table.items():
        where = f"[matrix] {key}"
        _check_name(key, "[matrix]")
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where}: must be a list of values, such as [0, 1, 2]")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, Value):
                raise UsageError(f"{where}: a value must be a number or a text, not {value!r}")
        names = [slug(str(value)) for value in values]
        for name, value in zip(names, values, strict=True):
            if not name or len(name) > 60 or names.count(name) > 1:
                raise UsageError(
                    f"{where}: {value!r} does not give a file name of its own; use short, different values"
                )
    return dict(table)


def _steps(tables: Iterable[tuple[str, Mapping[str, Any]]], matrix: Mapping[str, Any]) -> dict[str, _Step]:
    """Return the steps by name. A step may only refer to steps above it, so there are no cycles."""
    steps: dict[str, _Step] = {}
    tables = list(tables)
    all_names = [table.get("name") for _, table in tables]
    for where, table in tables:
        name = _text(table, "name", where)
        where = f"step {name!r}"
        _check_name(name, where)
        if name.lower() in TAKEN:  # some file systems take Study.json and study.json for the same file
            raise UsageError(f"{where}: the study itself has files of this name ({', '.join(TAKEN)}); use another name")
        _check_keys(table, where, ("name", "run", "from"))
        if name in steps or name in matrix:
            raise UsageError(
                f"{where}: the name is taken; every step and every key of the matrix needs a name of its own"
            )
        try:
            words = shlex.split(_text(table, "run", where))
        except ValueError as error:
            raise UsageError(f"{where}: run: {error}") from error
        if not words:
            raise UsageError(f"{where}: run is empty; write a command such as prune --ratio 0.5")
        if "from" in table:
            words.insert(1, f"{{{_text(table, 'from', where)}}}")
            _check_reference(words[1][1:-1], [*steps], all_names, f"{where}: from")
        placeholders = [placeholder for word in words for placeholder in PLACEHOLDER.findall(word)]
        for placeholder in placeholders:
            if placeholder not in matrix:
                _check_reference(placeholder, [*steps], all_names, f"{where}: run: {{{placeholder}}}", [*matrix])
        for placeholder in placeholders:
            if placeholder in steps and steps[placeholder].template[0] == EXPORT:
                raise UsageError(f"{where}: {placeholder!r} is an export, which makes no checkpoint for other steps")
        sources = list(dict.fromkeys(placeholder for placeholder in placeholders if placeholder in steps))
        keys = {*placeholders, *(key for source in sources for key in steps[source].keys)}
        steps[name] = _Step(name, words, sources, [key for key in matrix if key in keys])
    return steps


def _check_reference(name: str, above: list[str], all_names: list[Any], where: str, keys: Iterable[str] = ()) -> None:
    if name in above:
        return
    if name in all_names:
        raise UsageError(f"{where}: {name!r} is not above this step; a step can only use steps above it")
    problem = "neither a key of [matrix] nor a step" if keys else "no step"
    raise UsageError(f"{where}: {name!r} is {problem}{nearest(name, [*above, *keys], count=1)}")


def _commands(steps: Iterable[_Step], matrix: Mapping[str, list[Value]]) -> Iterator[Command]:
    steps = list(steps)
    count = sum(math.prod(len(matrix[key]) for key in step.keys) for step in steps)
    if count > MAX_COMMANDS:
        raise UsageError(f"[matrix]: makes {count:,} commands; at most {MAX_COMMANDS:,} are allowed")
    keys = {step.name: step.keys for step in steps}
    for step in steps:
        for chosen in itertools.product(*(matrix[key] for key in step.keys)):
            values = dict(zip(step.keys, chosen, strict=True))
            inputs = {
                source: Command(source, {key: values[key] for key in keys[source]}, (), {}).name
                for source in step.steps
            }
            yield Command(step.name, values, tuple(step.template), inputs)


def _comparison(where: str, table: Mapping[str, Any], steps: Mapping[str, _Step]) -> tuple[str, ...]:
    _check_keys(table, where, ("of",))
    of = table.get("of")
    if not isinstance(of, list) or len(of) < 2 or not all(isinstance(name, str) for name in of):
        raise UsageError(f'{where}: of must be a list of at least two steps, such as ["pruned", "distilled"]')
    for name in of:
        _check_reference(name, [*steps], [], f"{where}: of")
        if of.count(name) > 1:
            raise UsageError(f"{where}: of: {name!r} is listed twice")
    return tuple(of)


def _tables(value: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each table of a list, after its name for error messages."""
    if value is None:
        return
    if not isinstance(value, list):
        raise UsageError(f"{name}: must be written as [[{name}]]")
    for number, table in enumerate(value, start=1):
        where = f"[[{name}]] number {number}"
        yield where, _table(table, where)


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: must be a table")
    return value


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise UsageError(
            f"{where}: {key} is missing" if value is None else f"{where}: {key} must be a text, not {value!r}"
        )
    return value


def _check_keys(table: Mapping[str, Any], where: str, known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise UsageError(
                f"{where}: unknown key {key!r}{nearest(key, known, count=1) or '; known: ' + ', '.join(known)}"
            )


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name) or len(name) > 60:
        raise UsageError(f"{where}: {name!r} is not a valid name; use letters, digits and -, and begin with a letter")


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
