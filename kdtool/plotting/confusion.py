"""The picture of a confusion matrix, as a PNG or for a page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdtool.plotting.fonts import write_png
from kdtool.plotting.svg import STYLE, as_svg, no_formula, shortened

INCHES = 0.34
"""The side of a cell, in inches, as long as there are few classes."""

LARGEST = 14.0
"""The side of the whole matrix, in inches."""

LABELLED = 60
"""Up to so many classes have their names at the sides, and a number in each cell."""

SHORT = 18
"""How many letters of a name are shown."""

COUNT_SIZE, DIGIT = 6, 0.053
"""The largest size of the numbers in cells, in points, and the width of a digit of that size, in inches."""

IN_CELLS = ("#fefefe", "#010101")
"""The colours of the numbers in dark and in light cells; a page whose text has another colour leaves these alone."""

MIDDLE = 0.179
"""The luminance of a cell on which black and white have the same contrast: sqrt(1.05 * 0.05) - 0.05."""


def draw_confusion(counts: np.ndarray[Any, np.dtype[np.int64]], names: Sequence[str], title: str, path: Path) -> None:
    """Write a PNG of ``counts`` [true class, answer]; the colour is the fraction of the true class's images.

    Raises:
        Error: the file cannot be written.
    """
    write_png(partial(_drawn, counts, names, title), path)


def confusion_svg(counts: np.ndarray[Any, np.dtype[np.int64]], names: Sequence[str], title: str) -> str:
    """Return the same picture as an ``svg`` element of a page."""
    import matplotlib

    # As all charts: text stays text, and the same numbers give the same bytes.
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        return as_svg(_drawn(counts, names, title))


def _drawn(counts: np.ndarray[Any, np.dtype[np.int64]], names: Sequence[str], title: str) -> Any:
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
    axes.set_title(no_formula(title), fontsize=9, wrap=True)
    if number <= LABELLED:
        shown = [no_formula(shortened(name, SHORT)) for name in names]
        # The longest number, and a gap of a digit to the next one, are within a cell.
        digits = len(f"{counts.max(initial=0)}") + 1
        size = min(COUNT_SIZE, COUNT_SIZE * side / number / (DIGIT * digits))
        axes.set_xticks(range(number), shown, rotation=90, fontsize=7)
        axes.set_yticks(range(number), shown, fontsize=7)
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = IN_CELLS[0] if _luminance(image.cmap(share[row, column])) < MIDDLE else IN_CELLS[1]
            count = int(counts[row, column])
            axes.text(column, row, f"{count}", ha="center", va="center", fontsize=size, color=colour)
    figure.colorbar(image, ax=axes, shrink=0.7, label="fraction of the true class")
    return figure


def _luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of a colour in sRGB, each part from 0 to 1 (WCAG 2.2)."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
