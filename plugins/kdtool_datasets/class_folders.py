"""Image files in one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdtool import Error

if TYPE_CHECKING:
    from kdtool.data import RawSplit

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jfif")


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without what tools leave behind (.git, __MACOSX)."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def read_split(folder: Path, classes: Sequence[str]) -> RawSplit:
    """Return the image files below each class's folder, in the order of their paths.

    Raises:
        kdtool.Error: there is a folder that is no class, or no image at all.
    """
    import torch

    from kdtool.data import RawSplit

    odd = set(subfolders(folder)) - set(classes)
    if odd:
        raise Error(f"{folder}: {min(odd)!r} is no class of the train split; move it away")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = image_files(folder / name)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise Error(f"{folder}: no images ({', '.join(SUFFIXES)}) in its class folders")
    return RawSplit(tuple(paths), torch.tensor(labels))


def image_files(folder: Path) -> list[Path]:
    """Return all image files below a folder, sorted; none where it does not exist."""
    found = []
    for place, inner, files in os.walk(folder, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        found += [
            Path(place, name) for name in sorted(files) if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return found


def common_form(paths: Sequence[Path]) -> tuple[int, int | None]:
    """Return the channels (1 or 3) of a sample of image files and the side that all of it has, None where sizes differ.

    Raises:
        kdtool.Error: a file is no image.
    """
    from PIL import Image

    sizes, gray = set(), True
    for path in paths[:: max(1, len(paths) // 32)]:
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
                gray = gray and image.mode in ("1", "L", "LA", "I", "I;16", "I;16B")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise Error(f"{path}: cannot be read as an image; remove or replace it") from error
    width, height = sizes.pop()
    return 1 if gray else 3, width if not sizes and width == height else None
