"""Image files in one folder per class."""

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
    """Return the sorted names of the subfolders, without those that tools create (.git, __MACOSX)."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def read_split(folder: Path, classes: Sequence[str]) -> RawSplit:
    """Return the image files below every class folder, class by class in a fixed order, and their labels.

    Raises:
        kdtool.Error: a subfolder is not a class, or there are no images.
    """
    import torch

    from kdtool.data import RawSplit

    unknown = set(subfolders(folder)) - set(classes)
    if unknown:
        raise Error(f"{folder}: {min(unknown)!r} is not a class of the train split; move this folder elsewhere")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = image_files(folder / name)
        paths += files
        labels += [label] * len(files)
    if not paths:
        raise Error(f"{folder}: no images ({', '.join(SUFFIXES)}) in its class folders")
    return RawSplit(tuple(paths), torch.tensor(labels))


def image_files(folder: Path) -> list[Path]:
    """Return all image files below a folder in a fixed order; an empty list if it does not exist."""
    paths = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        # In place: os.walk visits the folders that are left in this list, in its order.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [
            Path(parent, name) for name in sorted(files) if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return paths


def common_form(paths: Sequence[Path]) -> tuple[int, int | None]:
    """Return the channels (1 or 3) and the side in pixels of a sample of image files.

    The side is None unless all images of the sample are squares of the same size.

    Raises:
        kdtool.Error: a file cannot be read as an image.
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
