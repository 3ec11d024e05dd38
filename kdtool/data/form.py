"""The form of a data set's image files, found from all of them: channels, size, and the value of white."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kdtool.data.file_index import FileInfo
from kdtool.data.preparation import SMALL
from kdtool.errors import Error

# The side in pixels to which images are resized, unless all are squares of the same small size.
LARGE = 224

# Pillow's modes of gray images.
GRAY = ("1", "L", "LA", "La", "F")

# Values of white of cameras and microscopes: 8, 10, 12, 14 and 16 bits.
WHITES = (255, 1023, 4095, 16383, 65535)


@dataclass(frozen=True)
class Form:
    """How image files are read by default; ``notes`` say what was chosen where the files differ.

    ``channels`` is 1 (gray) or 3 (colour), ``size`` the side in pixels. ``white`` is the value of white in integer
    images of more than 8 bits, None if there are none.
    """

    channels: int
    size: int
    white: int | None
    notes: tuple[str, ...]


def form_of(infos: Iterable[FileInfo], *, channels: int | None = None, size: int | None = None) -> Form:
    """Return the form of image files: in colour if any of them is, at their size if all are squares of a small one.

    What the data set says of itself, ``channels`` and ``size``, is not looked for.
    """
    infos = list(infos)
    notes = []
    if channels is None:
        gray = sum(_is_gray(info.mode) for info in infos)
        channels = 1 if gray == len(infos) else 3
        if 0 < gray < len(infos):
            notes.append(
                f"{gray:,} of {len(infos):,} images are gray; all are read in colour (--in-channels 1: all in gray)"
            )
    if size is None:
        sizes = {(info.width, info.height) for info in infos}
        width, height = next(iter(sizes))
        size = width if len(sizes) == 1 and width == height <= SMALL else LARGE
        if size == LARGE and sizes != {(LARGE, LARGE)}:
            sides = [side for image in sizes for side in image]
            notes.append(
                f"images have sides of {min(sides)} to {max(sides)} pixels; they are read at {LARGE} pixels "
                "(choose with --image-size)"
            )
    white, note = white_of(infos)
    return Form(channels, size, white, (*notes, *note))


def white_of(infos: Iterable[FileInfo]) -> tuple[int | None, tuple[str, ...]]:
    """Return the value of white in integer images of more than 8 bits (None if there are none), and what to say of it.

    It is the largest value of 8, 10, 12, 14 or 16 bits that no pixel exceeds.
    """
    peaks = [info.peak for info in infos if info.peak is not None]
    if not peaks:
        return None, ()
    top = max(peaks)
    white = next((white for white in WHITES if top <= white), None)
    if white is None:
        raise Error(f"{len(peaks):,} images have values up to {top}, more than 16 bits; convert them to 8 or 16 bits")
    note = f"{len(peaks):,} images of more than 8 bits have values up to {top}; {white} is read as white"
    return white, () if white == WHITES[-1] else (note,)


def _is_gray(mode: str) -> bool:
    return mode in GRAY or mode.startswith("I")
