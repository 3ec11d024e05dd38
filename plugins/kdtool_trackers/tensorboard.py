"""TensorBoard: event files in a directory (https://www.tensorflow.org/tensorboard)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from kdtool.plugins import Tracked, Tracker


class TensorBoard(Tracker):
    """Write event files to ``DIR/NAME``; DIR is ``runs`` beside the output unless it is given."""

    needs: ClassVar[str] = "tensorboard"
    install: ClassVar[str] = "pip install 'kdtool[tensorboard]'"

    def start(self, tracked: Tracked) -> None:
        """Open the event file, and write the options as a table."""
        from torch.utils.tensorboard import SummaryWriter

        directory = (Path(self.place) if self.place else tracked.output.parent / "runs") / tracked.name
        directory.mkdir(parents=True, exist_ok=True)
        self.writer: Any = SummaryWriter(str(directory))
        rows = "\n".join(f"| {name} | {value} |" for name, value in tracked.parameters.items())
        self.writer.add_text("options", f"| option | value |\n|---|---|\n{rows}")
        self.writer.flush()

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars, so that a reader sees them at once."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def facts(self, values: Mapping[str, str]) -> None:
        """Write texts."""
        for name, value in values.items():
            self.writer.add_text(name, value)

    def finish(self, failed: bool) -> None:
        """Close the event file."""
        self.writer.close()
