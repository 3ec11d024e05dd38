"""The one error that a person is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Error(Exception):
    """An expected failure: one line that names the thing, the reason and the way out."""

    exit_code = 1


class UsageError(Error):
    """A wrong name, option or combination, found before anything ran."""

    exit_code = 2


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """Return ``; did you mean a, b?`` for the names nearest to ``name``, or an empty string."""
    close = difflib.get_close_matches(name, list(names), n=count, cutoff=0.5)
    return f"; did you mean {', '.join(close)}?" if close else ""


FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    AssertionError,
    ZeroDivisionError,
)
"""What a network's forward raises when its layers do not fit together."""


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
