"""The errors that are shown to the user, and the exceptions of a failing forward pass."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBERS = re.compile(r"(\d{1,9})")


class Error(Exception):
    """An expected failure; the message is one line that names the thing, the reason and the way out."""

    exit_code = 1


class UsageError(Error):
    """A wrong name, option or combination of options, found before anything runs."""

    exit_code = 2


def nearest(name: str, names: Iterable[str], count: int = 4) -> str:
    """Return ``; did you mean a, b?`` with the names of which ``name`` may be a misspelling, or an empty string."""
    close = similar(name, names)[:count]
    return f"; did you mean {', '.join(close)}?" if close else ""


def similar(name: str, names: Iterable[str]) -> list[str]:
    """Return the names of which ``name`` may be a misspelling, the most likely first.

    Names that differ in case, hyphens and underscores only are the same word, and are returned alone. Else a name must
    be one typing error away for each four letters, or one of the two must be the beginning of the other (``optim`` for
    ``optimizer``), or they share all but their ends (``pruning`` and ``prune``). A number that is at most a tenth away
    (``resnet20`` for ``resnet19``) counts as one typing error. A name that merely has many letters in common is none:
    a wrong suggestion is worse than no suggestion.
    """
    word = bare(name)
    if not word:
        return []
    same, one_error, beginnings, others = [], [], [], []
    for other in dict.fromkeys(names):
        letters = bare(other)
        allowed = 0 if len(word) < 3 else (len(word) + 3) // 4
        distance = _typing_errors(word, letters, allowed)
        if letters == word:
            same.append(other)
        elif distance <= min(allowed, 1) or _apart(word, letters) <= 0.1:
            one_error.append(other)
        elif len(word) > 2 and (letters.startswith(word) or (len(letters) > 3 and word.startswith(letters))):
            beginnings.append(other)
        elif distance <= allowed:
            others.append((distance, other))
        elif 7 * _shared_beginning(word, letters) >= 4 * max(len(word), len(letters)) >= 20:
            others.append((allowed + 1, other))
    least = min((distance for distance, _ in others), default=0)
    likely = sorted(one_error, key=lambda other: _apart(word, bare(other))) + sorted(beginnings, key=len)
    return same or likely or [other for distance, other in others if distance == least]


def bare(name: str) -> str:
    """Return a name without case, hyphens and underscores, to compare it with others."""
    return name.lower().replace("-", "").replace("_", "")


def _apart(a: str, b: str) -> float:
    """Return the relative difference of the number in which two names differ; 1 if they differ in anything else."""
    parts, others = _NUMBERS.split(a), _NUMBERS.split(b)
    differing = [pair for pair in zip(parts, others, strict=False) if pair[0] != pair[1]]
    if len(parts) != len(others) or len(differing) != 1 or not "".join(differing[0]).isdecimal():
        return 1.0
    x, y = map(int, differing[0])
    return abs(x - y) / max(x, y, 1)


def _shared_beginning(a: str, b: str) -> int:
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _typing_errors(a: str, b: str, limit: int) -> int:
    """Return how many letters were left out, added, replaced or swapped with their neighbour; ``limit`` + 1 if more.

    This is the distance of optimal string alignment (Damerau, 1964): d[i][j] is the least of d[i-1][j] + 1,
    d[i][j-1] + 1, d[i-1][j-1] + [a_i != b_j] and, if the last two letters are swapped, d[i-2][j-2] + 1.
    """
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and (x, y) == (b[j - 2], a[i - 2]):
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return min(row[-1], limit + 1)


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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters; of one without a message its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
