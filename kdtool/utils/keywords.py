"""Keyword arguments as text, such as ``width=32,depths=(2, 2),act=relu``: plain values of Python, never code."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from typing import Any

from kdtool.errors import UsageError

LONGEST = 10_000
"""The largest number of characters that are read."""

# A comma inside a value is followed by no name with an equals sign.
_BETWEEN = re.compile(r",(?=\s*[A-Za-z_][\w-]*\s*=)")


def read_keywords(text: str) -> dict[str, Any]:
    """Return the arguments by name; what is no value of Python is a text.

    Raises:
        UsageError: the text is not of that form.
    """
    if len(text) > LONGEST:
        raise UsageError(f"arguments of more than {LONGEST:,} characters")
    values = {}
    for assignment in _BETWEEN.split(text) if text.strip() else []:
        name, equals, value = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise UsageError(f"{assignment!r} is not of the form option=value")
        values[name] = _value(value.strip())
    return values


def as_keywords(values: Mapping[str, Any]) -> str:
    """Return the text from which `read_keywords` makes these values; the names are in order."""
    return ",".join(f"{name}={values[name]!r}" for name in sorted(values))


def _value(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
    return value if _is_plain(value) else text


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str)
