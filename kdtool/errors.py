"""The errors that are shown to the user, and the exceptions of a failing forward pass."""

from __future__ import annotations

from collections.abc import Iterable


class Error(Exception):
    """An expected failure; the message is one line that names the thing, the reason and the way out."""

    exit_code = 1


class UsageError(Error):
    """A wrong name, option or combination of options, found before anything runs."""

    exit_code = 2


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """Return ``; did you mean a, b?`` with the names most similar to ``name``, or an empty string."""
    import difflib  # needed for error messages only, so not at start-up

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
"""The exceptions of a forward pass whose layers do not fit together."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 200 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
