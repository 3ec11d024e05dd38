"""Read the tables of a recipe's TOML file, with errors that name the place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from kdtool.errors import UsageError, nearest

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")

MAX_LINE = 1 << 16
"""The largest number of characters in a command line: the time to split it grows with the square of a word's length."""


def tables_of(value: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each table of a list, after its name for error messages."""
    if value is None:
        return
    if not isinstance(value, list):
        raise UsageError(f"{name}: must be written as [[{name}]]")
    for number, table in enumerate(value, start=1):
        where = f"[[{name}]] number {number}"
        yield where, table_of(table, where)


def table_of(value: Any, where: str) -> Mapping[str, Any]:
    """Return a value that has to be a table."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: must be a table")
    return value


def text_of(table: Mapping[str, Any], key: str, where: str) -> str:
    """Return the text of a key that a table has to have."""
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise UsageError(
            f"{where}: {key} is missing" if value is None else f"{where}: {key} must be a text, not {value!r}"
        )
    return value


def words_of(run: str, where: str) -> list[str]:
    """Return the words of a command line as a shell splits them; a placeholder with spaces is one word."""
    if len(run) > MAX_LINE:
        raise UsageError(f"{where}: run has {len(run):,} characters; at most {MAX_LINE:,} are allowed")
    joined = run.replace("\\\n", "")  # a line that goes on in the next one
    try:
        words = shlex.split(re.sub(r"\{\s*([^\s{}]+)\s*\}", r"{\1}", joined))
    except ValueError as error:
        raise UsageError(f"{where}: run: {error}") from error
    if not words:
        raise UsageError(f"{where}: run is empty; write a command such as prune --ratio 0.5")
    return words


def check_keys(table: Mapping[str, Any], where: str, known: tuple[str, ...]) -> None:
    """Raise a UsageError if a table has another key than those that are known."""
    for key in table:
        if key not in known:
            raise UsageError(
                f"{where}: unknown key {key!r}{nearest(key, known, count=1) or '; known: ' + ', '.join(known)}"
            )


def check_name(name: str, where: str) -> None:
    """Raise a UsageError unless a name can be part of a file's."""
    if not NAME.fullmatch(name) or len(name) > 60:
        raise UsageError(f"{where}: {name!r} is not a valid name; use letters, digits and -, and begin with a letter")


def check_reference(
    name: str, above: Collection[str], all_names: list[Any], where: str, keys: Collection[str] = ()
) -> None:
    """Raise a UsageError unless a name is that of a step ``above``, or of one of the ``keys``."""
    if name in above:
        return
    if name in all_names:
        raise UsageError(f"{where}: {name!r} is not above this step; a step can only use steps above it")
    problem = "neither a key of [matrix] nor a step" if keys else "no step"
    raise UsageError(f"{where}: {name!r} is {problem}{nearest(name, [*above, *keys], count=1)}")
