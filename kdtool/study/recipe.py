"""The recipe of a study: its steps and matrix read from TOML, checked, and unrolled into commands."""

from __future__ import annotations

import itertools
import math
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdtool.errors import Error, UsageError, nearest
from kdtool.utils.files import slug

Value = int | float | str

SEED = "seed"
"""The key of the matrix over which results are averaged."""

MOST = 10_000
"""So many commands a study has at most."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Command:
    """A step with a value for every placeholder: one command, which makes one checkpoint."""

    step: str
    values: dict[str, Value]
    """What the matrix gives to this command and to those that it comes from."""
    template: tuple[str, ...]
    """The words of the command line, without ``-o``, with their placeholders."""
    inputs: dict[str, str]
    """The commands whose checkpoints it reads, by the names of their steps."""

    @property
    def name(self) -> str:
        """What its files are called: ``pruned_seed=0_ratio=0.5``."""
        return "_".join([self.step, *(f"{key}={slug(str(value))}" for key, value in self.values.items())])

    def words(self, directory: Path) -> list[str]:
        """Return the command line, with the study's checkpoints in ``directory``."""
        known = {**self.values, **{step: directory / f"{name}.pt" for step, name in self.inputs.items()}}
        return [PLACEHOLDER.sub(lambda found: str(known[found[1]]), word) for word in self.template]


@dataclass(frozen=True)
class Recipe:
    """A study as it was planned; ``commands`` stand in an order in which they can be run."""

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
    """Those whose checkpoints it reads."""
    keys: list[str] = field(default_factory=list)
    """The keys of the matrix on which it depends, in the matrix's order."""


def read_recipe(path: str | Path, output: str | Path | None = None) -> Recipe:
    """Read a recipe; ``output`` is the study's directory, where it is not that which the recipe names.

    Raises:
        UsageError: the file is missing, is no TOML, or something in it is unknown or wrong; the step is named.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is no TOML: {error}") from error
    try:
        return _recipe(path, content, output)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _recipe(path: Path, content: Mapping[str, Any], output: str | Path | None) -> Recipe:
    _check_keys(content, "the recipe", ("study", "matrix", "step", "compare"))
    study = _table(content.get("study", {}), "[study]")
    _check_keys(study, "[study]", ("name", "output"))
    told = {key: _text(study, key, "[study]") for key in study}
    directory = Path(output) if output is not None else path.parent / told.get("output", f"{path.stem}.study")
    matrix = _matrix(_table(content.get("matrix", {}), "[matrix]"))
    steps = _steps(_tables(content.get("step"), "step"), matrix)
    if not steps:
        raise UsageError("has no [[step]]")
    used = {key for step in steps.values() for key in step.keys}
    for key in matrix:
        if key not in used:
            raise UsageError(f"[matrix]: no step uses {{{key}}}")
    commands = tuple(_commands(steps.values(), matrix))
    comparisons = tuple(_comparison(table, steps) for table in _tables(content.get("compare"), "compare"))
    return Recipe(path, told.get("name", path.stem), directory, matrix, commands, comparisons)


def _matrix(given: Mapping[str, Any]) -> dict[str, list[Value]]:
    for key, values in given.items():
        where = f"[matrix] {key}"
        _check_name(key, "[matrix]")
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where}: is a list of values, such as [0, 1, 2]")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, Value):
                raise UsageError(f"{where}: a value is a number or a text, not {value!r}")
        names = [slug(str(value)) for value in values]
        for name, value in zip(names, values, strict=True):
            if not name or len(name) > 60 or names.count(name) > 1:
                raise UsageError(f"{where}: {value!r} makes no file name of its own")
    return dict(given)


def _steps(tables: Iterable[tuple[str, Mapping[str, Any]]], matrix: Mapping[str, Any]) -> dict[str, _Step]:
    """Return the steps by their names; each comes from steps above it, so that there are no circles."""
    steps: dict[str, _Step] = {}
    tables = list(tables)
    everything = [table.get("name") for _, table in tables]
    for where, table in tables:
        name = _text(table, "name", where)
        where = f"step {name!r}"
        _check_name(name, where)
        _check_keys(table, where, ("name", "run", "from"))
        if name in steps or name in matrix:
            raise UsageError(f"{where}: the name is taken; steps and keys of the matrix have names of their own")
        try:
            words = shlex.split(_text(table, "run", where))
        except ValueError as error:
            raise UsageError(f"{where}: run: {error}") from error
        if not words:
            raise UsageError(f"{where}: run is empty; it is a command such as prune --ratio 0.5")
        if "from" in table:
            words.insert(1, f"{{{_text(table, 'from', where)}}}")
            _check_reference(words[1][1:-1], [*steps], everything, f"{where}: from")
        found = [placeholder for word in words for placeholder in PLACEHOLDER.findall(word)]
        for placeholder in found:
            if placeholder not in matrix:
                _check_reference(placeholder, [*steps], everything, f"{where}: run: {{{placeholder}}}", [*matrix])
        sources = list(dict.fromkeys(one for one in found if one in steps))
        keys = {*found, *(key for source in sources for key in steps[source].keys)}
        steps[name] = _Step(name, words, sources, [key for key in matrix if key in keys])
    return steps


def _check_reference(name: str, above: list[str], everything: list[Any], where: str, keys: Iterable[str] = ()) -> None:
    if name in above:
        return
    if name in everything:
        raise UsageError(f"{where}: {name!r} does not stand above it; a step comes from those above it")
    what = "neither a key of [matrix] nor a step" if keys else "no step"
    raise UsageError(f"{where}: {name!r} is {what}{nearest(name, [*above, *keys], count=1)}")


def _commands(steps: Iterable[_Step], matrix: Mapping[str, list[Value]]) -> Iterator[Command]:
    steps = list(steps)
    count = sum(math.prod(len(matrix[key]) for key in step.keys) for step in steps)
    if count > MOST:
        raise UsageError(f"[matrix]: makes {count:,} commands; {MOST:,} are the most")
    keys = {step.name: step.keys for step in steps}
    for step in steps:
        for chosen in itertools.product(*(matrix[key] for key in step.keys)):
            values = dict(zip(step.keys, chosen, strict=True))
            inputs = {
                source: Command(source, {key: values[key] for key in keys[source]}, (), {}).name
                for source in step.steps
            }
            yield Command(step.name, values, tuple(step.template), inputs)


def _comparison(given: tuple[str, Mapping[str, Any]], steps: Mapping[str, _Step]) -> tuple[str, ...]:
    where, table = given
    _check_keys(table, where, ("of",))
    of = table.get("of")
    if not isinstance(of, list) or len(of) < 2 or not all(isinstance(name, str) for name in of):
        raise UsageError(f'{where}: of is a list of two steps or more, such as ["pruned", "distilled"]')
    for name in of:
        _check_reference(name, [*steps], [], f"{where}: of")
        if of.count(name) > 1:
            raise UsageError(f"{where}: of: {name!r} stands there twice")
    return tuple(of)


def _tables(given: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each table of a list with how to speak of it."""
    if given is None:
        return
    if not isinstance(given, list):
        raise UsageError(f"{name}: is written as [[{name}]]")
    for number, table in enumerate(given, start=1):
        where = f"[[{name}]] number {number}"
        yield where, _table(table, where)


def _table(given: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise UsageError(f"{where}: is no table")
    return given


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise UsageError(f"{where}: {key} is missing" if value is None else f"{where}: {key} is a text, not {value!r}")
    return value


def _check_keys(table: Mapping[str, Any], where: str, known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise UsageError(
                f"{where}: unknown key {key!r}{nearest(key, known, count=1) or '; known: ' + ', '.join(known)}"
            )


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name) or len(name) > 60:
        raise UsageError(f"{where}: {name!r} is no name: it is made of letters, digits and -, and begins with a letter")


def in_step(recipe: Recipe, command: Command, error: Error) -> UsageError:
    """Return an error that names the recipe and the step."""
    return UsageError(f"{recipe.path}: step {command.step!r}: {error}")
