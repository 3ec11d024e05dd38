"""Name the program here in which the numbers of a training are shown."""

from collections.abc import Mapping
from pathlib import Path

from kdtool.plugins import Tracked, Tracker


class Lines(Tracker):
    """Write numbers as lines of text to the file that is named after the colon."""

    def start(self, tracked: Tracked) -> None:
        self.path = Path(self.place or f"{tracked.name}.txt")
        self.path.touch()

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for name, value in values.items():
                file.write(f"{step} {name} {value}\n")
