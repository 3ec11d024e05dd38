"""Progress bars and messages on stderr. Where stderr is no terminal, plain lines take the place of the bars."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterable, Iterator
from typing import Protocol

from kdtool.utils import screens
from kdtool.utils.formatting import printable_lines
from kdtool.utils.meters import Meter, Screen
from kdtool.utils.processes import is_first
from kdtool.utils.verbosity import is_quiet, is_verbose


class Advance(Protocol):
    """Move the progress bar by ``steps`` and show ``note`` beside it."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Move the bar."""


# The screen that is shown now; a second bar goes into the same one.
_shown: list[Screen] = []


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Show a progress bar with the remaining time while the block runs.

    ``title`` is the text before the bar, ``total`` the number of steps. Off a terminal a line is printed when an epoch
    ends, but at most one in a minute and at least one in two (see `kdtool.utils.screens`). Within `command_progress`
    a bar whose title is the name of a phase moves the bar of the command too.
    """
    with _screen(None) as screen:
        meter = screen.add(title, total)
        try:
            yield lambda steps=1, note="": screen.advance(meter, steps, note)
        finally:
            screen.remove(meter)


# The public name, since ``kdtool.utils.progress`` is this module.
progress_bar = progress


@contextlib.contextmanager
def command_progress(title: str, phases: Iterable[tuple[str, float]]) -> Iterator[None]:
    """Show a bar for a whole command while the block runs.

    ``phases`` are the titles of the bars that are to come, and for how many seconds each is expected to run.
    """
    with _screen(Meter(title, 0), list(phases)):
        yield


def phase_skipped(title: str) -> None:
    """Move the bar of the command over a phase that is finished already."""
    if _shown:
        _shown[-1].skip(title)


def phases_ahead(phases: Iterable[tuple[str, float]]) -> None:
    """Foresee other phases than `command_progress` was told, by title and seconds, for the rest of the command."""
    if _shown:
        _shown[-1].expect(list(phases))


def epoch_ended(line: str) -> None:
    """Print a line about an epoch that ended: off a terminal at most one in a minute, all of them if it is wanted."""
    if _shown:
        _shown[-1].epoch_ended(line)
    elif is_verbose():
        say(line)


@contextlib.contextmanager
def _screen(whole: Meter | None, phases: list[tuple[str, float]] | None = None) -> Iterator[Screen]:
    """Yield the screen that is shown, or open one; ``whole`` is the bar of a command over its ``phases``."""
    if _shown and whole is None:
        yield _shown[-1]
        return
    with contextlib.ExitStack() as stack:
        outer = _shown[-1] if _shown else None
        if outer is not None:
            outer.pause()
            stack.callback(outer.resume)
        screen = screens.opened(whole, phases or [])
        stack.enter_context(screen)
        _shown.append(screen)
        stack.callback(_shown.remove, screen)
        yield screen


def say(line: str) -> None:
    """Print one line on stderr, unless only errors are wanted; of several processes the first one prints."""
    if not is_quiet() and is_first():
        for screen in _shown[-1:]:
            screen.clear()
        print(printable_lines(line), file=sys.stderr, flush=True)


def say_once(line: str) -> None:
    """Print one line on stderr, once in a process."""
    if not is_quiet():
        _say_once(line)


@functools.lru_cache(maxsize=1000)
def _say_once(line: str) -> None:
    say(line)
