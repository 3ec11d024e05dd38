"""Progress bars in a terminal, as wide as it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column

from kdtool.utils.formatting import shown_duration
from kdtool.utils.meters import REFRESH_SECONDS, Meter, Screen

# In a terminal with fewer columns there is no bar. A note that would be shorter than this is left out.
WIDTH_OF_BAR, SMALLEST_NOTE = 44, 16

# The columns of the part that is done and of the time left, such as "3.5 days left".
PERCENT, LEFT = 4, 13


class Bars(Screen):
    """A bar for the command, and below it one for what it is doing."""

    def __init__(self, whole: Meter | None, phases: Sequence[tuple[str, float]]) -> None:
        """Show ``whole`` over its ``phases``, see `Screen`."""
        super().__init__(whole, phases)
        self.console = Console(stderr=True)
        self.progress = Progress(
            *_columns(self.console.width), console=self.console, transient=True, refresh_per_second=1 / REFRESH_SECONDS
        )
        self.tasks: dict[Meter, TaskID] = {}
        self.refreshed = 0.0

    def __enter__(self) -> Screen:
        self.progress.start()
        if self.whole is not None:
            self._show(self.whole)
        return self

    def __exit__(self, *error: Any) -> None:
        self.progress.stop()

    def add(self, title: str, total: float) -> Meter:
        """Show a bar, the innermost so far."""
        meter = super().add(title, total)
        self._show(meter)
        return meter

    def _show(self, meter: Meter) -> None:
        self.tasks[meter] = self.progress.add_task(meter.title, total=1.0, note="", left="")

    def remove(self, meter: Meter) -> None:
        """End a bar."""
        super().remove(meter)
        self.progress.remove_task(self.tasks.pop(meter))

    def refresh(self) -> None:
        """Show how far all is, if enough time has passed."""
        if time.monotonic() - self.refreshed < REFRESH_SECONDS:
            return
        self.refreshed = time.monotonic()
        for meter, task in self.tasks.items():
            seconds = self.left() if meter is self.whole else meter.seconds_left()
            left = f"{shown_duration(seconds)} left" if seconds is not None and seconds > 0.5 else ""
            self.progress.update(task, description=meter.title, completed=meter.fraction, note=meter.note, left=left)

    def pause(self) -> None:
        """Show nothing until `resume`."""
        self.progress.stop()

    def resume(self) -> None:
        """Show the bars again."""
        self.progress.start()


class _Percent(ProgressColumn):
    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True, min_width=PERCENT))

    def render(self, task: Task) -> str:
        """Return the part that is done."""
        return f"{task.percentage:>3.0f}%"


def _columns(width: int) -> list[ProgressColumn]:
    """Return the columns that have room in a terminal of this width."""
    name = max(8, min(28, width // 4 if width >= WIDTH_OF_BAR else width - PERCENT - LEFT - 3))
    bar = min(24, width // 5) if width >= WIDTH_OF_BAR else 0
    note = width - name - bar - PERCENT - LEFT - 5
    columns: list[ProgressColumn] = [_text("description", name)]
    if bar:
        columns.append(BarColumn(bar_width=bar))
    columns += [_Percent(), _text("fields[left]", LEFT)]
    return [*columns, _text("fields[note]", note)] if bar and note >= SMALLEST_NOTE else columns


def _text(field: str, width: int) -> TextColumn:
    column = Column(no_wrap=True, overflow="ellipsis", max_width=width)
    return TextColumn(f"{{task.{field}}}", markup=False, table_column=column)
