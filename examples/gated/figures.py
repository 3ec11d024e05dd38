"""Draw the figures of the README from ``results-figures.json``: python figures.py [DIRECTORY]."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdtool.plotting.chart import Chart, Panel, Point
from kdtool.plotting.svg import draw_chart

HERE = Path(__file__).parent

FIGURES = {
    "error-against-kl.svg": ("kl-target", "kl", "error", "kl_0 of the search, in nats", "test error"),
    "error-against-lambda.svg": ("penalty", "lambda", "error", "lambda_2", "test error"),
    "epochs-against-lambda.svg": ("penalty", "lambda", "search_epochs", "lambda_2", "epochs of the search"),
}
"""The step, the number of the matrix, the measure and the titles of the axes of each file."""


def chart(rows: Sequence[Mapping[str, Any]], step: str, key: str, measure: str, x: str, y: str) -> Chart:
    """Return the chart of a measure against a number of the matrix: the mean over seeds, and each seed."""
    # kl_0 = 0 is the search for the smallest KL.
    found = [
        (row["values"].get(key, 0), row)
        for row in rows
        if row["step"] == step or (key == "kl" and row["step"] == "searched-by-kl")
    ]
    lines = {
        f"seed {seed}": sorted(
            (Point(value, row[measure]) for value, row in found if row["values"]["seed"] == seed),
            key=lambda point: point.x,
        )
        for seed in sorted({row["values"]["seed"] for _, row in found})
    }
    return Chart(f"{y} against {x}", x, y, [Panel("", lines, {})])


def main(directory: Path) -> None:
    """Write the figures into a directory."""
    rows = json.loads((HERE / "results-figures.json").read_text(encoding="utf-8"))["rows"]
    for name, about in FIGURES.items():
        (directory / name).write_text(draw_chart(chart(rows, *about)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
