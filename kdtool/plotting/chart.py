"""Panels of points, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A measured number ``y`` with its interval, where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Panel:
    """Lines by their names, and what does not depend on x by its name."""

    title: str
    lines: Mapping[str, Sequence[Point]]
    level: Mapping[str, float]


@dataclass(frozen=True)
class Chart:
    """Panels beside each other that share their axes."""

    title: str
    x: str
    y: str
    panels: Sequence[Panel]
