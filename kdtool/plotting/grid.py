"""A grid of images with captions, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdtool.plotting.fonts import write_png

COLUMNS = 8

INCHES = 1.3
"""The width of an image, in inches."""

LINE_HEIGHT = 0.16
"""The height of a line of text, in inches."""


def grid(images: np.ndarray[Any, np.dtype[np.float32]], captions: Sequence[str], title: str, path: Path) -> None:
    """Write a PNG of ``images`` ``[number, height, width, channels]``, values from 0 to 1, with a caption above each.

    Images that do not have three channels are shown in gray, as the mean over their channels.

    Raises:
        Error: the file cannot be written.
    """
    write_png(partial(_drawn, images, captions, title), path)


def _drawn(images: np.ndarray[Any, np.dtype[np.float32]], captions: Sequence[str], title: str) -> Any:
    # pyplot would keep the figures in memory and look for a screen.
    from matplotlib.figure import Figure

    columns = min(COLUMNS, max(len(images), 3))
    rows = max(1, math.ceil(len(images) / columns))
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    title_height = LINE_HEIGHT * 1.5 * (title.count("\n") + 2)
    height = rows * (INCHES + LINE_HEIGHT * lines) + title_height
    figure = Figure(figsize=(columns * INCHES, height))
    # matplotlib treats text between two dollar signs as a formula.
    figure.suptitle(title.replace("$", r"\$"), fontsize=9, y=1 - 0.1 / height, va="top", wrap=True)
    top = 1 - (title_height + LINE_HEIGHT * lines) / height
    figure.subplots_adjust(0.02, 0.02, 0.98, top, wspace=0.1, hspace=0.2 + 0.15 * lines)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        axes = figure.add_subplot(rows, columns, index + 1)
        gray = image.shape[-1] != 3
        axes.imshow(image.mean(-1) if gray else image, cmap="gray" if gray else None, vmin=0, vmax=1)
        axes.set_title(caption.replace("$", r"\$"), fontsize=7, pad=2)
        axes.set_axis_off()
    return figure
