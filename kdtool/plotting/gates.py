"""Pictures of a gated search: drop ratios of connections and layers (the paper's Figure 8), and the search itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool.plotting.svg import STYLE, as_svg
from kdtool.utils.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = 0.16
"""The side of a square and the height of a bar, in inches."""

COLOR_MAP = "viridis"


def draw_gates(gate_map: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Write an SVG of a gate map (see `kdtool.surgery.gates.gate_map`).

    Every dense block is a panel with one square per connection, whose color is the ratio of its channels that were
    dropped. Every other layer is a bar of that ratio.
    """
    blocks, layers = gate_map["blocks"], gate_map["layers"]
    widths = [max(3.0, INCHES * len(block["producers"]) + 1.6) for block in blocks] + [4.0] * bool(layers)
    rows = max([len(block["readers"]) for block in blocks] + [len(layers)])
    figure = _figure(sum(widths) + 1.0, INCHES * rows + 1.4)
    panels = figure.subplots(1, len(widths), squeeze=False, gridspec_kw={"width_ratios": widths})[0]
    for number, (block, axes) in enumerate(zip(blocks, panels, strict=False), start=1):
        _squares(axes, block, f"dense block {number}")
    if blocks:
        from matplotlib.cm import ScalarMappable

        bar = figure.colorbar(ScalarMappable(cmap=COLOR_MAP), ax=list(panels), fraction=0.02, pad=0.01)
        bar.set_label("drop ratio", fontsize=7)
        bar.ax.tick_params(labelsize=6)
    if layers:
        _bars(panels[-1], layers)
    _write(figure, path)


def _squares(axes: Axes, block: Mapping[str, Any], title: str) -> None:
    import numpy as np

    table = [[np.nan if ratio is None else ratio for ratio in row] for row in block["dropped"]]
    axes.imshow(np.array(table, dtype=float), cmap=COLOR_MAP, vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.set_xlabel("channels of", fontsize=7)
    axes.set_ylabel("read by", fontsize=7)
    axes.set_xticks(range(len(block["producers"])), _short(block["producers"]), fontsize=4, rotation=90)
    axes.set_yticks(range(len(block["readers"])), _short(block["readers"]), fontsize=4)


def _bars(axes: Axes, layers: Sequence[Mapping[str, Any]]) -> None:
    positions = range(len(layers))
    axes.barh(positions, [layer["dropped"] for layer in layers], height=0.8)
    axes.set_yticks(positions, [f"{layer['layer']} ({layer['channels']})" for layer in layers], fontsize=4)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_title("other layers", fontsize=8)
    axes.set_xlabel("drop ratio of its channels", fontsize=7)
    axes.tick_params(axis="x", labelsize=6)


def _short(paths: Sequence[str]) -> list[str]:
    """Return the last two names of each path."""
    return [".".join(path.split(".")[-2:]) for path in paths]


def draw_search(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write an SVG of the open gates, the MACs and the KL divergence over the epochs of a search."""
    figure = _figure(7.5, 2.4)
    epochs = [row["epoch"] for row in rows]
    for axes, (key, title, scale) in zip(
        figure.subplots(1, 3),
        (("open", "open gates", 1.0), ("macs", "MACs, in millions", 1e-6), ("kl", "KL, in nats", 1.0)),
        strict=True,
    ):
        axes.plot(epochs, [row[key] * scale for row in rows], marker="o", markersize=3, linewidth=1)
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("epoch", fontsize=7)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=6)
    _write(figure, path)


def _figure(width: float, height: float) -> Figure:
    # pyplot would keep the figures in memory and look for a screen.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _write(figure: Figure, path: Path) -> None:
    """Write the figure; the same numbers give the same bytes."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": STYLE["svg.hashsalt"]}):
        write_text(path, as_svg(figure) + "\n")
