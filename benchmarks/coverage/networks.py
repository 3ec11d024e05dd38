"""The list of networks, and the edits and uses that are tried with each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("architectures.txt")
CLASSES = 10

EDITS = {
    "halve": "halve",
    "halve4": "halve x4",
    "depth": "depth",
    "structured": "structured 30 %",
    "inherit": "halve, inherited",
}
"""The edits by name, with the titles of their columns."""

USES = {"rebuild": "rebuild", "train": "train step", "onnx": "ONNX parity"}
"""What is done with the result of an edit, by name, with the titles of the columns."""

USED = ("halve", "halve4", "depth", "structured")
"""The edits whose results are used."""


@dataclass(frozen=True)
class Entry:
    """A network of the list, the side of its images in pixels, and its group: the comment above it."""

    spec: str
    side: int
    group: str = ""


def read_list(path: Path) -> list[Entry]:
    """Return the networks of a file with a ``source:name side`` on each line; a comment begins a group.

    Raises:
        ValueError: a line has another form.
    """
    entries, group = [], ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if line.startswith("#"):
            group = line.removeprefix("#").strip()
        elif words:
            if len(words) != 2 or not words[1].isdecimal():
                raise ValueError(f"{path}, line {number}: {line!r} is not a network and the side of its images")
            entries.append(Entry(words[0], int(words[1]), group))
    return entries


def use_cells(edit: str) -> list[str]:
    """Return the cells of the uses of an edit's result."""
    return [f"{edit}.{use}" for use in USES] if edit in USED else []
