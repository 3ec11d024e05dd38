"""Progress on stderr for a person at a terminal; silent elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol


class Advance(Protocol):
    """Move the bar by ``steps`` and say where things stand."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Advance."""


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Show a bar with the time left while the block runs, where stderr is a terminal."""
    if not sys.stderr.isatty():
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
        task = bars.add_task(what, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            if note:
                bars.update(task, advance=steps, note=note)
            else:
                bars.update(task, advance=steps)

        yield advance


def say(line: str) -> None:
    """Tell the person at the terminal one line, on stderr."""
    print(line, file=sys.stderr, flush=True)
