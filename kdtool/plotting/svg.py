"""The charts of a study as SVG, and what all charts have in common."""

from __future__ import annotations

import contextlib
import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdtool.plotting.chart import Chart, Panel
from kdtool.utils.formatting import printable, printable_lines

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Colors that people with any kind of color vision can tell apart (Okabe and Ito, 2008)."""

MARKERS = "osD^vPX*"

WIDTH, HEIGHT = 3.6, 2.7
"""The size of a panel, in inches."""

COLUMNS = 3
"""The largest number of panels in a row."""

PANEL_CHARACTERS, MARK_CHARACTERS, TITLE_CHARACTERS, AXIS_DIGITS = 46, 9, 44, 40
"""The characters of a legend that the width of a panel holds, those that an entry's mark takes, those of a line of a
title, and the digits beside each other that the length of an axis holds."""

LINE, LEGEND_LINES, MOST_TEXT_LINES = 0.17, 2, 4
"""The height of a line of text in inches, the lines of a legend that every figure has room for, and the largest number
of lines of one text."""

MAX_TICKS = 12
"""Up to this number, every value of x has its own tick."""

MAX_DIGITS = 6
"""From this length on, the values of x have no ticks of their own."""

MARGIN = 0.05
"""The part of an axis that is left free on both sides."""

WIDE = 8
"""Values of x have a logarithmic axis if the largest is at least so many times the smallest."""

STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "kdtool",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # every text names them all
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.titlesize": 8,
    "axes.formatter.useoffset": False,  # an accuracy is 0.98331, not 1e-5 + 0.9833
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
}


# A log or a study of a stranger may have any number of entries, numbers of any size, and texts where numbers belong.
# Up to 64 lines are told apart (see `marker_of`).
MOST_PANELS, MOST_LINES, MOST_CHARACTERS, LARGEST = 32, 64, 60, 1e100


def number_of(value: Any) -> float | None:
    """Return a number that can be drawn; None for anything else."""
    drawable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    return float(value) if drawable else None


def draw_chart(chart: Chart, panels: Sequence[Panel] | None = None) -> str:
    """Return a chart of a study as SVG: lines with an error bar at each point, and dashed levels.

    With ``panels``, only these of its panels are drawn, with the colors and the axes of all.
    """
    names = chart.names()[:MOST_LINES]
    panels = chart.panels if panels is None else panels
    with figure_of(len(panels), share_x=True, share_y=True) as figure:
        handles: dict[str, Any] = {}
        for index, (axes, panel) in enumerate(zip(figure.axes, panels, strict=True)):
            handles |= _panel(axes, panel, names)
            axes.set_xlabel(no_formula(printable(chart.x, MOST_CHARACTERS)))
            if index % COLUMNS == 0:
                axes.set_ylabel(chart.y)
            _scale(axes, chart)
        entitle(figure, [panel.title for panel in panels])
        legend_below(figure, handles, len(panels))
        return as_svg(figure)


def draw_panels(chart: Chart) -> list[str]:
    """Return the panels of a chart as one SVG each, so that they stand below each other on a narrow page."""
    return [draw_chart(chart, [panel]) for panel in chart.panels]


def _scale(axes: Any, chart: Chart) -> None:
    """Give an axis the limits and the ticks that all panels of a chart share."""
    points, levels = [*chart.points()], [value for panel in chart.panels for value in panel.level.values()]
    ends = [end for point in points for end in (point.y, point.low, point.high) if end is not None]
    if not points:
        return
    axes.set_ylim(*_limits([*ends, *levels]))
    ticks = sorted({point.x for point in points})
    if chart.from_zero:
        axes.set_xlim(0, _limits([0, *ticks])[1])
        return
    wide = is_wide(ticks)
    if wide:
        logarithmic(axes, ticks)
    place = math.log10 if wide else float
    low, high = _limits([place(tick) for tick in ticks])
    axes.set_xlim(*((10**low, 10**high) if wide else (low, high)))
    # If there are few values of x, each has a tick, unless they were measured and have many digits.
    labels = [f"{tick:g}" for tick in ticks]
    if len(ticks) <= MAX_TICKS and max(map(len, labels)) < MAX_DIGITS:
        axes.set_xticks(ticks, _apart(labels, [(place(tick) - low) / (high - low) for tick in ticks]))
        axes.minorticks_off()


def is_wide(values: Sequence[float]) -> bool:
    """Return whether numbers belong on a logarithmic axis."""
    return bool(values) and max(values) >= WIDE * min(values) > 0


def logarithmic(axes: Any, values: Sequence[float]) -> None:
    """Make the axis of x logarithmic, with plain numbers that do not run into each other; ``values`` are on it."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    few = max(values) < 1000 * min(values)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,), numticks=6))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _apart(labels: Sequence[str], places: Sequence[float]) -> list[str]:
    """Return the labels of ticks at ``places`` from 0 to 1, empty where one would touch that on its left."""
    shown, free = [], -math.inf
    for label, place in zip(labels, places, strict=True):
        half = len(label) / 2 / AXIS_DIGITS
        shown.append(label if place - half >= free else "")
        free = place + half + 1 / AXIS_DIGITS if shown[-1] else free
    return shown


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the largest of some numbers, with a margin."""
    low, high = min(values), max(values)
    margin = MARGIN * (high - low) or MARGIN * abs(high) or MARGIN
    return low - margin, high + margin


def entitle(figure: Any, titles: Sequence[str]) -> None:
    """Give each panel of a figure its title, in as many lines as it needs; the figure becomes higher by these."""
    wrapped = [_wrapped(title, TITLE_CHARACTERS) for title in titles]
    for axes, title in zip(figure.axes, wrapped, strict=True):
        axes.set_title(no_formula(title))
    _grow(figure, math.ceil(len(titles) / COLUMNS) * max(title.count("\n") for title in wrapped))


def legend_below(figure: Any, handles: Mapping[str, Any], panels: int) -> None:
    """Name the lines and points of a figure with so many panels below it, by name.

    The figure becomes higher by the lines of the legend, so that the panels keep their size.
    """
    # As many columns as the longest name leaves room for.
    width = PANEL_CHARACTERS * min(panels, COLUMNS)
    names = [_wrapped(name, width - MARK_CHARACTERS) for name in handles]
    longest = max((len(line) for name in names for line in name.split("\n")), default=0) + MARK_CHARACTERS
    columns = max(1, min(len(handles), width // longest))
    lines = sum(name.count("\n") + 1 for name in names)
    _grow(figure, max(0, math.ceil(lines / columns) - LEGEND_LINES))
    figure.legend(handles.values(), map(no_formula, names), loc="outside lower center", ncols=columns)


def _grow(figure: Any, lines: int) -> None:
    """Make a figure higher by lines of text."""
    figure.set_figheight(figure.get_figheight() + LINE * lines)


def _wrapped(text: str, width: int) -> str:
    """Return a text in lines of at most ``width`` characters, with an ellipsis if there are too many."""
    return "\n".join(textwrap.wrap(printable(text, 1000), width, max_lines=MOST_TEXT_LINES, placeholder="…"))


def shortened(text: str, most: int) -> str:
    """Return a text as one line of at most so many characters, with an ellipsis if it is cut."""
    return printable(text if len(text) <= most else text[: most - 1] + "…", most)


def _panel(axes: Any, panel: Panel, names: Sequence[str]) -> dict[str, Any]:
    """Draw a panel, and return the handles of its lines and levels for the legend, by name."""
    handles: dict[str, Any] = {}
    for name, points in panel.lines.items():
        if name not in names:
            continue
        index = names.index(name)
        errors = [
            [_reach(point.low, point.y) for point in points],
            [_reach(point.y, point.high) for point in points],
        ]
        handles[name] = axes.errorbar(
            [point.x for point in points],
            [point.y for point in points],
            yerr=errors if any(point.low is not None for point in points) else None,
            color=COLORS[index % len(COLORS)],
            marker=marker_of(index),
            elinewidth=0.8,
            capsize=2,
        )
    for name, value in panel.level.items():
        if name in names:
            color = COLORS[names.index(name) % len(COLORS)]
            handles[name] = axes.axhline(value, color=color, linestyle="--", linewidth=1)
    return handles


def _reach(low: float | None, high: float | None) -> float:
    """Return the length of one side of an error bar; NaN, which is not drawn, if the point has no interval."""
    return math.nan if low is None or high is None else max(0.0, high - low)


def marker_of(index: int) -> str:
    """Return the marker of a line; lines of one color have different ones, for up to 64 lines."""
    return MARKERS[(index + index // len(COLORS)) % len(MARKERS)]


@contextlib.contextmanager
def figure_of(panels: int, *, share_x: bool = False, share_y: bool = False) -> Iterator[Any]:
    """Yield a figure with axes for ``panels`` panels; the style applies within the ``with`` block.

    Panels that share an axis leave room for a legend below them.
    """
    # pyplot would keep the figures in memory and look for a screen.
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(panels, COLUMNS)
    rows = math.ceil(panels / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows + 0.4 * (share_x or share_y)), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False)
        for axes in grid.flat[panels:]:
            axes.remove()
        # Also the last panel of a column that ends above the last row has numbers at its axis.
        for axes in grid.flat[max(0, panels - columns) : panels]:
            axes.tick_params(labelbottom=True)
        yield figure


def as_svg(figure: Any) -> str:
    """Return a figure as the text of an ``svg`` element; with `STYLE` the same figure gives the same text."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :].strip()


def no_formula(text: str) -> str:
    """Return a text that matplotlib shows as it is, without control characters, which no XML may have."""
    # matplotlib treats text between two dollar signs as a formula.
    return printable_lines(text, None).replace("$", r"\$")
