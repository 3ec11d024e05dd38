"""The parts of a report, before they are written in a format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Heading:
    """A heading of a level from 1 to 6."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values; those that are None or empty are left out."""

    rows: Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Table:
    """Rows with a column for each key that has a text or a number in some row.

    A number with an interval, such as ``error`` with ``error_low`` and ``error_high``, is shown as ``number ± half the
    width``.
    """

    rows: Sequence[Mapping[str, Any]]
    leave_out: Iterable[str] = ()
    titles: Mapping[str, str] = field(default_factory=dict)
    """The headings of keys, where they are others than the keys."""


@dataclass(frozen=True)
class Figure:
    """A chart that kdtool drew, as one ``svg`` element or several, which stand side by side where there is room."""

    svgs: Sequence[str]
    caption: str


@dataclass(frozen=True)
class Picture:
    """A picture from any origin, as the content of an SVG file."""

    svg: bytes
    caption: str


@dataclass(frozen=True)
class Commands:
    """Commands to copy, each with a remark that may be empty."""

    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Links:
    """Files beside the report: their names and their addresses relative to it."""

    files: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Folded:
    """Parts that are hidden until the reader opens them."""

    title: str
    parts: Sequence[Block]


Block = Heading | Paragraph | Facts | Table | Figure | Picture | Commands | Links | Folded
