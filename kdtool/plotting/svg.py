"""Charts as SVG: the curves of a training, and what a study came to."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdtool.plotting.chart import Chart, Panel

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Apart from each other for all kinds of colour vision (Okabe and Ito, 2008)."""

MARKERS = "osD^vPX*"

WIDTH, HEIGHT = 3.6, 2.7
"""Inches of a panel."""

COLUMNS = 3
"""So many panels stand beside each other."""

MOST_TICKS = 12
"""So many phases, or values that were run, have their own tick."""

APART_BY = 20
"""From this ratio on, the greatest and the least of some numbers are drawn on a logarithmic axis."""

NO_CURVES = ("phase", "epoch", "seconds", "lr")
"""What of a logged epoch is no curve of its own."""

STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "kdtool",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.titlesize": 8,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
}


def curves(epochs: Sequence[Mapping[str, Any]]) -> str:
    """Return the curves of a run as SVG, its phases one behind the other.

    ``epochs`` are the lines of metrics.jsonl: ``phase``, ``epoch``, ``loss``, ``val_loss`` and whatever else the loop
    or a method notes; each number is drawn, the two losses together.
    """
    known = {key: None for row in epochs for key, value in row.items() if isinstance(value, int | float)}
    losses: list[str] = [key for key in ("loss", "val_loss") if key in known]
    groups: list[list[str]] = [losses] if losses else []
    groups += [[key] for key in known if key not in (*NO_CURVES, *losses)]
    starts = [at for at, row in enumerate(epochs) if at == 0 or row["phase"] != epochs[at - 1]["phase"]]
    with _figure(len(groups)) as figure:
        for axes, group in zip(figure.axes, groups, strict=True):
            for key, color in zip(group, COLORS, strict=False):
                for start, end in zip(starts, [*starts[1:], len(epochs)], strict=True):
                    line = [(at + 1, epochs[at][key]) for at in range(start, end) if epochs[at].get(key) is not None]
                    # A line of one epoch would not be seen.
                    marker = "o" if len(line) == 1 else None
                    name = key.replace("_", " ") if start == 0 else None
                    axes.plot([x for x, _ in line], [y for _, y in line], color=color, marker=marker, label=name)
            _phases(axes, [str(epochs[start]["phase"]) for start in starts], starts)
            axes.set_title("loss" if group is losses else group[0].replace("_", " "))
            if len(group) > 1:
                axes.legend(fontsize=7)
            if group is losses and _far_apart([row[key] for row in epochs for key in group if key in row]):
                axes.set_yscale("log")
        return as_svg(figure)


def _far_apart(values: Sequence[float]) -> bool:
    """Whether numbers, such as the losses of different phases, are of different sizes."""
    return min(values) > 0 and max(values) > APART_BY * min(values)


def drawn(chart: Chart) -> str:
    """Return a chart of a study as SVG: lines with the intervals of their points, levels dashed."""
    names = list(dict.fromkeys(name for panel in chart.panels for name in [*panel.lines, *panel.level]))
    with _figure(len(chart.panels), share=True) as figure:
        handles: dict[str, Any] = {}
        for place, (axes, panel) in enumerate(zip(figure.axes, chart.panels, strict=True)):
            handles |= _panel(axes, panel, names)
            axes.set_title(_plain(panel.title))
            axes.set_xlabel(_plain(chart.x))
            if place % COLUMNS == 0:
                axes.set_ylabel(chart.y)
        columns = min(len(names), 3 * min(len(chart.panels), COLUMNS))
        figure.legend(handles.values(), map(_plain, handles), loc="outside lower center", ncols=columns)
        return as_svg(figure)


def _panel(axes: Any, panel: Panel, names: Sequence[str]) -> dict[str, Any]:
    """Draw a panel and return what its legend shows, by the names of the lines."""
    found: dict[str, Any] = {}
    for name, points in panel.lines.items():
        place = names.index(name)
        spread = None
        if all(point.low is not None and point.high is not None for point in points):
            spread = [[p.y - (p.low or 0) for p in points], [(p.high or 0) - p.y for p in points]]
        found[name] = axes.errorbar(
            [point.x for point in points],
            [point.y for point in points],
            yerr=spread,
            color=COLORS[place % len(COLORS)],
            marker=MARKERS[place % len(MARKERS)],
            elinewidth=0.8,
            capsize=2,
        )
    for name, value in panel.level.items():
        found[name] = axes.axhline(value, color=COLORS[names.index(name) % len(COLORS)], linestyle="--", linewidth=1)
    # The values that were run, where there are few.
    ticks = sorted({point.x for points in panel.lines.values() for point in points})
    if len(ticks) <= MOST_TICKS:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    return found


def _phases(axes: Any, names: Sequence[str], starts: Sequence[int]) -> None:
    """Tell phases apart, and name them where there are few."""
    for start in starts[1:]:
        axes.axvline(start + 0.5, color="#999999", linewidth=0.6, linestyle=":")
    if 1 < len(starts) <= MOST_TICKS:
        axes.set_xticks([start + 1 for start in starts], map(_plain, names), rotation=40, ha="right")
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")


@contextlib.contextmanager
def _figure(panels: int, *, share: bool = False) -> Iterator[Any]:
    """Yield a figure of so many axes; the style holds while the block runs."""
    # Not pyplot, which keeps figures and looks for a screen.
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(panels, COLUMNS)
    rows = math.ceil(panels / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows + 0.4 * share), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False)
        for axes in grid.flat[panels:]:
            axes.remove()
        yield figure


def as_svg(figure: Any) -> str:
    """Return a figure as the text of an ``svg`` element, the same for the same figure while the style holds."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :].strip()


def _plain(text: str) -> str:
    # matplotlib takes a pair of dollars for a formula.
    return text.replace("$", r"\$")
