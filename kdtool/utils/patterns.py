"""Names that patterns choose."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from kdtool.errors import UsageError, nearest

SHOWN = 3
"""How many names a message lists."""


def matching(patterns: Iterable[str], names: Sequence[str], flag: str, spec: str) -> set[str]:
    """Return the names that match a pattern, or lie in a module that matches one; ``*`` stands for any text.

    The pattern ``layer4`` matches ``layer4.0.conv1``. Blanks around a pattern are left out.

    Raises:
        UsageError: a pattern is empty, or matches nothing; the message has names that are near it. ``flag`` is the
            option and ``spec`` the network.
    """
    paths = list(dict.fromkeys(path for name in names for path in _around(name)))
    found: set[str] = set()
    for pattern in map(str.strip, patterns):
        if not pattern:
            raise UsageError(f"{flag}: a pattern is empty; write names with commas between them, such as conv1,layer1")
        hits = {path for path in paths if fnmatch.fnmatchcase(path, pattern)}
        if not hits:
            hint = nearest(pattern, paths) or f"; there are {shown(names)}"
            raise UsageError(f"{flag} {pattern}: matches no layer of {spec} that this can change{hint}")
        found |= {name for name in names if not hits.isdisjoint(_around(name))}
    return found


def shown(names: Sequence[str]) -> str:
    """Return the first names as text."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _around(name: str) -> list[str]:
    """Return a path and those of the modules around it."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
