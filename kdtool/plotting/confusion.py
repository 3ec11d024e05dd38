"""The picture of a confusion matrix, as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdtool.utils.files import atomic

INCHES = 0.34
"""The side of a cell, in inches, as long as there are few classes."""

LARGEST = 14.0
"""The side of the whole matrix, in inches."""

LABELLED = 60
"""Up to so many classes have their names at the sides, and a number in each cell."""

SHORT = 18
"""How many letters of a name are shown."""


def draw_confusion(counts: np.ndarray[Any, np.dtype[np.int64]], names: Sequence[str], title: str, path: Path) -> None:
    """Write a PNG of ``counts`` [true class, answer]; the colour is the fraction of the true class's images.

    Raises:
        Error: the file cannot be written.
    """
    # pyplot would keep the figures in memory and look for a screen.
    from matplotlib.figure import Figure

    number = len(names)
    side = min(LARGEST, max(2.5, INCHES * number))
    figure = Figure(figsize=(side + 2.2, side + 2.0), layout="constrained")
    axes = figure.add_subplot()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    # matplotlib treats text between two dollar signs as a formula.
    axes.set_title(title.replace("$", r"\$"), fontsize=9, wrap=True)
    if number <= LABELLED:
        shown = [_short(name).replace("$", r"\$") for name in names]
        axes.set_xticks(range(number), shown, rotation=90, fontsize=7)
        axes.set_yticks(range(number), shown, fontsize=7)
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if share[row, column] > 0.5 else "black"
            count = int(counts[row, column])
            axes.text(column, row, f"{count}", ha="center", va="center", fontsize=6, color=colour)
    figure.colorbar(image, ax=axes, shrink=0.7, label="fraction of the true class")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _short(name: str) -> str:
    return name if len(name) <= SHORT else name[: SHORT - 1] + "…"
