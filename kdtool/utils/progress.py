"""Progress bars and messages on stderr."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Iterator
from typing import Protocol


class Advance(Protocol):
    """Move the progress bar by ``steps`` and show ``note`` beside it."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Move the bar."""


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Show a progress bar with the remaining time while the block runs; show nothing if stderr is not a terminal.

    ``title`` is the text before the bar, ``total`` the number of steps.
    """
    # Where latency is measured on another device, rich may be missing.
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        yield lambda steps=1, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bars:
        task = bars.add_task(title, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            if note:
                bars.update(task, advance=steps, note=note)
            else:
                bars.update(task, advance=steps)

        yield advance


def say(line: str) -> None:
    """Print one line on stderr."""
    print(line, file=sys.stderr, flush=True)


@functools.lru_cache(maxsize=1000)
def say_once(line: str) -> None:
    """Print one line on stderr, once in a process."""
    say(line)
