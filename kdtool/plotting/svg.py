"""Charts as SVG: the curves of a training, and the charts of a study."""

from __future__ import annotations

import contextlib
import io
import math
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

PANEL_CHARACTERS, MARK_CHARACTERS = 46, 9
"""The characters of a legend that the width of a panel holds, and those that an entry's mark takes."""

MAX_TICKS = 12
"""Up to this number, every phase or every value of x has its own tick."""

MAX_DIGITS = 6
"""From this length on, the values of x have no ticks of their own."""

MARGIN = 0.05
"""The part of an axis that is left free on both sides."""

LOG_RATIO = 20
"""Losses are drawn on a logarithmic axis if the largest exceeds the smallest by more than this factor."""

NO_CURVES = ("phase", "epoch", "seconds", "lr", "threads", "gradient_ratio")
"""The keys of a logged epoch that are not drawn as curves."""

SOMETIMES = ("gradient_ratio", "val_loss_averaged", "val_accuracy_averaged")
"""The keys that not every epoch of a phase has."""

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
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
}


# A log or a study of a stranger may have any number of entries, numbers of any size, and texts where numbers belong.
# Up to 64 lines are told apart (see `marker_of`).
MOST_PANELS, MOST_LINES, MOST_PHASES, MOST_CHARACTERS, LARGEST = 32, 64, 200, 60, 1e100


Curves = tuple[str, list[str], set[str] | None]
"""The title of a panel, the numbers that it shows, and the phases whose epochs it shows (None: all)."""


def draw_curves(epochs: Sequence[Mapping[str, Any]], *, labels_alone: bool = False) -> list[str]:
    """Return the curves of a run as SVG, one for each panel, with its phases one after the other.

    ``epochs`` are the lines of metrics.jsonl: ``phase``, ``epoch``, ``loss``, ``val_loss`` and all other numbers that
    the loop or a method logs. Each number has a panel of its own. The two losses share one where they are the same
    kind: where the training loss is that of the labels alone (``labels_alone``), and in phases that validate by their
    own loss. The losses of phases of different kinds have panels of their own too.
    """
    rows = [{**{key: number_of(value) for key, value in row.items()}, "phase": row["phase"]} for row in epochs]
    known = {key: None for row in rows for key, value in row.items() if value is not None}
    panels = [*_loss_panels(rows, labels_alone=labels_alone)]
    panels += [(key.replace("_", " "), [key], None) for key in known if key not in (*NO_CURVES, "loss", "val_loss")]
    return [_curves(rows, panel) for panel in panels[:MOST_PANELS]]


def number_of(value: Any) -> float | None:
    """Return a number that can be drawn; None for anything else."""
    drawable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    return float(value) if drawable else None


def _curves(epochs: Sequence[Mapping[str, Any]], panel: Curves) -> str:
    title, keys, phases = panel
    starts = [at for at, row in enumerate(epochs) if at == 0 or row["phase"] != epochs[at - 1]["phase"]]
    starts = starts if len(starts) <= MOST_PHASES else [0]
    shown = [row if phases is None or row["phase"] in phases else {} for row in epochs]
    with figure_of(1) as figure:
        (axes,) = figure.axes
        for key, color in zip(keys, COLORS, strict=False):
            name: str | None = key.replace("_", " ")
            for start, end in zip(starts, [*starts[1:], len(epochs)], strict=True):
                line = [(at + 1, shown[at][key]) for at in range(start, end) if shown[at].get(key) is not None]
                if line:
                    # A line of one epoch would be invisible.
                    marker = "o" if len(line) == 1 else None
                    axes.plot([x for x, _ in line], [y for _, y in line], color=color, marker=marker, label=name)
                    name = None
        _phases(axes, [printable(str(epochs[start]["phase"]), MOST_CHARACTERS) for start in starts], starts)
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.set_title(no_formula(printable(title, MOST_CHARACTERS)))
        if len(keys) > 1:
            axes.legend(fontsize=7)
        values = [row[key] for row in shown for key in keys if row.get(key) is not None]
        if keys[0] in ("loss", "val_loss") and _needs_log_axis(values):
            axes.set_yscale("log")
        return as_svg(figure)


def _loss_panels(epochs: Sequence[Mapping[str, Any]], *, labels_alone: bool) -> Iterator[Curves]:
    """Yield the panels of the losses: phases that log the same numbers have the same kind of loss."""
    kinds: dict[frozenset[str], dict[str, None]] = {}
    keys: dict[str, set[str]] = {}
    for row in epochs:
        keys.setdefault(str(row["phase"]), set()).update(key for key in row if key not in SOMETIMES)
    for phase, logged in keys.items():
        kinds.setdefault(frozenset(logged), {})[phase] = None
    for numbers, names in kinds.items():
        of = f": {', '.join(names)}" if len(kinds) > 1 and len(names) <= 2 else ""
        phases = set(names) if len(kinds) > 1 else None
        found: list[str] = [key for key in ("loss", "val_loss") if key in numbers]
        if labels_alone or "val_accuracy" not in numbers:
            if found:
                yield f"loss{of}", found, phases
        else:
            titles = {"loss": f"training loss{of}", "val_loss": f"validation loss (labels){of}"}
            yield from ((titles[key], [key], phases) for key in found)


def _needs_log_axis(values: Sequence[float]) -> bool:
    """Return whether numbers, such as the losses of different phases, differ too much for a linear axis."""
    return bool(values) and min(values) > 0 and max(values) > LOG_RATIO * min(values)


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
            axes.set_title(no_formula(printable(panel.title, MOST_CHARACTERS)))
            axes.set_xlabel(no_formula(printable(chart.x, MOST_CHARACTERS)))
            if index % COLUMNS == 0:
                axes.set_ylabel(chart.y)
            _scale(axes, chart)
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
    low, high = _limits([0, *ticks] if chart.from_zero else ticks)
    axes.set_xlim(0 if chart.from_zero else low, high)
    # If there are few values of x, each has a tick, unless they were measured and have many digits.
    labels = [f"{tick:g}" for tick in ticks]
    if not chart.from_zero and len(ticks) <= MAX_TICKS and max(map(len, labels)) < MAX_DIGITS:
        axes.set_xticks(ticks, labels)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the largest of some numbers, with a margin."""
    low, high = min(values), max(values)
    margin = MARGIN * (high - low) or MARGIN * abs(high) or 1
    return low - margin, high + margin


def legend_below(figure: Any, handles: Mapping[str, Any], panels: int) -> None:
    """Name the lines and points of a figure with so many panels below it, by name."""
    # As many columns as the longest name leaves room for.
    names = [printable(name, 2 * MOST_CHARACTERS) for name in handles]
    longest = max(map(len, names), default=0) + MARK_CHARACTERS
    columns = max(1, min(len(handles), PANEL_CHARACTERS * min(panels, COLUMNS) // longest))
    figure.legend(handles.values(), map(no_formula, names), loc="outside lower center", ncols=columns)


def _panel(axes: Any, panel: Panel, names: Sequence[str]) -> dict[str, Any]:
    """Draw a panel, and return the handles of its lines and levels for the legend, by name."""
    handles: dict[str, Any] = {}
    for name, points in panel.lines.items():
        if name not in names:
            continue
        index = names.index(name)
        errors = None
        if all(point.low is not None and point.high is not None for point in points):
            errors = [
                [point.y - (point.low or 0) for point in points],
                [(point.high or 0) - point.y for point in points],
            ]
        handles[name] = axes.errorbar(
            [point.x for point in points],
            [point.y for point in points],
            yerr=errors,
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


def marker_of(index: int) -> str:
    """Return the marker of a line; lines of one color have different ones, for up to 64 lines."""
    return MARKERS[(index + index // len(COLORS)) % len(MARKERS)]


def _phases(axes: Any, names: Sequence[str], starts: Sequence[int]) -> None:
    """Draw a line between the phases, and write their names if there are few."""
    for start in starts[1:]:
        axes.axvline(start + 0.5, color="#999999", linewidth=0.6, linestyle=":")
    if 1 < len(starts) <= MAX_TICKS:
        axes.set_xticks([start + 1 for start in starts], map(no_formula, names), rotation=40, ha="right")
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")


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
