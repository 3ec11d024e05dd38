"""The plain data of a chart: panels of lines and levels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A measured number ``y`` at ``x``, with the ends of its interval if it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Panel:
    """The lines of a panel by name, and its levels by name: numbers that do not depend on x."""

    title: str
    lines: Mapping[str, Sequence[Point]]
    level: Mapping[str, float]


@dataclass(frozen=True)
class Chart:
    """Panels side by side that share their axes; ``x`` and ``y`` are the labels of the axes."""

    title: str
    x: str
    y: str
    panels: Sequence[Panel]
    from_zero: bool = False
    """Whether the axis of x begins at 0, as that of a share does."""
    cut: bool = False
    """Whether the panels that would come next are left out, since they are too many."""

    def names(self) -> list[str]:
        """Return the names of the lines and levels of all panels."""
        return list(dict.fromkeys(name for panel in self.panels for name in [*panel.lines, *panel.level]))

    def points(self) -> Iterator[Point]:
        """Yield the points of all panels."""
        for panel in self.panels:
            for line in panel.lines.values():
                yield from line
