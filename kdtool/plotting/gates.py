"""Pictures of a gated search: drop ratios of connections and layers (the paper's Figure 8), and the search itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool.plotting.svg import STYLE, as_svg, no_formula
from kdtool.utils.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = 0.16
"""The side of a square and the height of a bar, in inches; a line of `SMALL` text fits into it."""

SMALL = 7
"""The size of the names of layers and the numbers at the axes, in points; other text has that of `STYLE`."""

FEW = 10
"""Up to this number, every epoch has its own tick."""

COLOR_MAP = "viridis"

PANELS = {
    "open": ("open gates", 1.0),
    "macs": ("MACs, in millions", 1e-6),
    "parameters": ("parameters, in millions", 1e-6),
    "latency_ratio": ("latency, as a fraction of the teacher's", 1.0),
    "kl": ("KL, in nats", 1.0),
}
"""The titles and the scales of what is drawn of a search, by the key in its rows."""


def draw_gates(gate_map: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, title: str = "") -> None:
    """Write an SVG of a gate map (see `kdtool.surgery.gates.gate_map`).

    Every dense block is a panel with one square per connection, whose color is the ratio of its channels that were
    dropped. Every other layer is a bar of that ratio.
    """
    blocks, layers = gate_map["blocks"], gate_map["layers"]
    widths = [max(3.0, INCHES * len(block["producers"]) + 2.0) for block in blocks] + [4.0] * bool(layers)
    rows = max([len(block["readers"]) for block in blocks] + [len(layers)])
    with _figure(sum(widths) + 1.0, INCHES * rows + 2.0) as figure:
        if title:
            figure.suptitle(no_formula(title))
        panels = figure.subplots(1, len(widths), squeeze=False, gridspec_kw={"width_ratios": widths})[0]
        for number, (block, axes) in enumerate(zip(blocks, panels, strict=False), start=1):
            _squares(axes, block, f"dense block {number}")
        if blocks:
            from matplotlib.cm import ScalarMappable

            bar = figure.colorbar(ScalarMappable(cmap=COLOR_MAP), ax=list(panels), fraction=0.02, pad=0.01)
            bar.set_label("drop ratio")
            bar.ax.tick_params(labelsize=SMALL)
        if layers:
            _bars(panels[-1], layers, "other layers" if blocks else "layers")
        write_text(path, as_svg(figure) + "\n")


def _squares(axes: Axes, block: Mapping[str, Any], title: str) -> None:
    import numpy as np

    table = [[np.nan if ratio is None else ratio for ratio in row] for row in block["dropped"]]
    axes.imshow(np.array(table, dtype=float), cmap=COLOR_MAP, vmin=0, vmax=1, interpolation="nearest")
    axes.grid(visible=False)
    axes.set_title(title)
    axes.set_xlabel("channels of")
    axes.set_ylabel("read by")
    axes.set_xticks(range(len(block["producers"])), _short(block["producers"]), fontsize=SMALL, rotation=90)
    axes.set_yticks(range(len(block["readers"])), _short(block["readers"]), fontsize=SMALL)


def _bars(axes: Axes, layers: Sequence[Mapping[str, Any]], title: str) -> None:
    positions = range(len(layers))
    axes.barh(positions, [layer["dropped"] for layer in layers], height=0.8)
    names = [no_formula(f"{layer['layer']} ({layer['channels']})") for layer in layers]
    axes.set_yticks(positions, names, fontsize=SMALL)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.grid(visible=False, axis="y")
    axes.set_title(title)
    axes.set_xlabel("drop ratio of its channels")
    axes.tick_params(axis="x", labelsize=SMALL)


def _short(paths: Sequence[str]) -> list[str]:
    """Return the last two names of each path."""
    return [no_formula(".".join(path.split(".")[-2:])) for path in paths]


def draw_search(
    rows: Sequence[Mapping[str, Any]], path: Path, budget: tuple[str, float] | None = None, title: str = ""
) -> None:
    """Write an SVG of the open gates, the cost and the KL divergence over the epochs of a search.

    ``budget`` is the key in the rows of what the budget limits (`PANELS`), and the limit, which becomes a dashed line.
    """
    keys = ["open", "macs", "kl"]
    if budget is not None and budget[0] not in keys:
        keys.insert(2, budget[0])
    with _figure(2.6 * len(keys), 2.6) as figure:
        if title:
            figure.suptitle(no_formula(title))
        for axes, key in zip(figure.subplots(1, len(keys)), keys, strict=True):
            name, scale = PANELS[key]
            line = [(row["epoch"], row[key] * scale) for row in rows if row.get(key) is not None]
            axes.plot([x for x, _ in line], [y for _, y in line], marker="o", markersize=3, linewidth=1)
            if budget is not None and key == budget[0]:
                axes.axhline(budget[1] * scale, color="#999999", linestyle="--", linewidth=1, label="budget")
                axes.legend(fontsize=SMALL)
            axes.set_title(name)
            axes.set_xlabel("epoch")
            axes.set_ylim(bottom=0)
            if len(rows) <= FEW:
                axes.set_xticks([row["epoch"] for row in rows])
            else:
                axes.xaxis.get_major_locator().set_params(integer=True)
            axes.tick_params(labelsize=SMALL)
        write_text(path, as_svg(figure) + "\n")


@contextlib.contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """Yield a figure; the style applies within the ``with`` block, so that the same numbers give the same bytes."""
    # pyplot would keep the figures in memory and look for a screen.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")
