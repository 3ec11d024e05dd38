"""The frontier of a compression: accuracy against each cost, with the budget, and which networks dominate others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdtool.plotting.svg import COLORS, MARKERS, as_svg, figure_of, is_wide, legend_below, logarithmic


@dataclass(frozen=True)
class Tried:
    """A network with its accuracy and its costs, None where one is not known."""

    name: str
    group: str
    """What has one colour: the method."""
    accuracy: float
    costs: Mapping[str, float | None]
    dominated: bool
    """Whether another network is as good in everything and better in something."""
    role: str = ""
    """``teacher``, ``winner`` or empty."""


@dataclass(frozen=True)
class Axis:
    """A cost: its key in `Tried.costs`, the label of its axis, and the limit of the budget in its unit, if any."""

    key: str
    label: str
    limit: float | None = None


def draw_frontier(tried: Sequence[Tried], axes: Sequence[Axis], label: str) -> str:
    """Return an SVG with a panel for each cost; ``label`` is that of accuracies.

    A grey line goes along the networks that no other one dominates in that cost, dashed lines are the budget. Filled
    points are on the frontier of all costs together.
    """
    groups = list(dict.fromkeys(point.group for point in tried))
    with figure_of(len(axes), share_y=True) as figure:
        handles: dict[str, Any] = {}
        for index, (panel, axis) in enumerate(zip(figure.axes, axes, strict=True)):
            points = [(float(cost), point) for point in tried if (cost := point.costs.get(axis.key)) is not None]
            _staircase(panel, points)
            for cost, point in points:
                number = groups.index(point.group)
                color = COLORS[number % len(COLORS)]
                (handle,) = panel.plot(
                    [cost],
                    [point.accuracy],
                    linestyle="",
                    marker="*" if point.role == "winner" else MARKERS[number % (len(MARKERS) - 1)],
                    markersize=10 if point.role == "winner" else 5,
                    markerfacecolor="none" if point.dominated else color,
                    markeredgecolor=color,
                )
                handles.setdefault(point.group if not point.role else point.role, handle)
            if axis.limit is not None:
                handles["budget"] = panel.axvline(axis.limit, color="#000000", linestyle="--", linewidth=0.8)
            panel.set_xlabel(axis.label)
            if is_wide(drawn := [cost for cost, _ in points]):
                logarithmic(panel, [*drawn, axis.limit or drawn[0]])
            if index == 0:
                panel.set_ylabel(label)
        legend_below(figure, handles, len(axes))
        return as_svg(figure)


def _staircase(panel: Any, points: Sequence[tuple[float, Tried]]) -> None:
    """Draw the best accuracy up to each cost."""
    best: list[tuple[float, float]] = []
    for cost, point in sorted(points, key=lambda pair: (pair[0], -pair[1].accuracy)):
        if not best or point.accuracy > best[-1][1]:
            best.append((cost, point.accuracy))
    if len(best) > 1:
        panel.step(
            [cost for cost, _ in best], [accuracy for _, accuracy in best], where="post", color="#999999", linewidth=1
        )
