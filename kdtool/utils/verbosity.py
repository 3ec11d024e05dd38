"""How much a command says on stderr: nothing but errors, the usual, or more."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from kdtool.utils.processes import is_first

QUIET, NORMAL, VERBOSE = -1, 0, 1

# Of the process, not of a context: the threads of a study say lines too.
_levels = [NORMAL]

_announced: list[bool] = []


def level() -> int:
    """Return `QUIET`, `NORMAL` or `VERBOSE`."""
    return _levels[-1]


def is_quiet() -> bool:
    """Return whether only errors are shown; of several processes the first one alone speaks.

    A program without a stderr, such as a service, shows nothing: ``print`` would take stdout instead.
    """
    return level() <= QUIET or not is_first() or sys.stderr is None


def is_verbose() -> bool:
    """Return whether a line for each epoch and each phase is shown."""
    return level() >= VERBOSE


@contextlib.contextmanager
def verbosity(new: int) -> Iterator[None]:
    """Say as much as `QUIET`, `NORMAL` or `VERBOSE` while the block runs."""
    _levels.append(new)
    try:
        yield
    finally:
        _levels.pop()


@contextlib.contextmanager
def announcing() -> Iterator[None]:
    """Say before each training what it will do and cost, also where stderr is no terminal, while the block runs."""
    _announced.append(True)
    try:
        yield
    finally:
        _announced.pop()


def is_announcing() -> bool:
    """Return whether a training says before it begins what it will do and cost."""
    return bool(_announced) and not is_quiet()
