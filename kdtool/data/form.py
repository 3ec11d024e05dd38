"""The form of a data set's image files, found from all of them: channels, size, and the value of white."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kdtool.data.file_index import FileInfo
from kdtool.data.pixels import FLOAT_WHITES, nearest_level
from kdtool.data.preparation import SMALL
from kdtool.errors import Error

# The side in pixels to which images are resized, unless all are squares of the same small size.
LARGE = 224

# Pillow's modes of gray images.
GRAY = ("1", "L", "LA", "La", "F")

# Those that store transparency.
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")

# Values of white of cameras and microscopes: 8, 10, 12, 14 and 16 bits.
WHITES = (255, 1023, 4095, 16383, 65535)

# It is said if fewer of the 256 levels are left of images of more than 8 bits. Values from 0 on use more of them, as
# white is the next full number of bits.
FEW_LEVELS = 64


@dataclass(frozen=True)
class Form:
    """How image files are read by default.

    ``choices`` say which channels and size were chosen where the files differ, ``notes`` what else becomes of them.
    ``channels`` is 1 (gray) or 3 (colour), ``size`` the side in pixels. ``white`` is the value of white in images
    of more than 8 bits, None if there are none.
    """

    channels: int
    size: int
    white: int | None
    choices: tuple[str, ...]
    notes: tuple[str, ...]


def form_of(
    infos: Iterable[FileInfo], *, channels: int | None = None, size: int | None = None, large: int = LARGE
) -> Form:
    """Return the form of image files: in colour if any of them is, at their size if all are squares of a small one.

    Others are read at ``large`` pixels. What the data set says of itself, ``channels`` and ``size``, is not looked for.
    """
    infos = list(infos)
    choices, notes = [], []
    if channels is None:
        gray = sum(_is_gray(info.mode) for info in infos)
        channels = 1 if gray == len(infos) else 3
        if 0 < gray < len(infos):
            choices.append(
                f"{gray:,} of {len(infos):,} images are gray; all are read in colour (--in-channels 1: all in gray)"
            )
    if size is None:
        sizes = {(info.width, info.height) for info in infos}
        width, height = next(iter(sizes))
        size = width if len(sizes) == 1 and width == height <= SMALL else large
        if size == large and sizes != {(large, large)}:
            sides = [side for image in sizes for side in image]
            choices.append(
                f"images have sides of {min(sides)} to {max(sides)} pixels; they are read at {large} pixels "
                "(choose with --image-size)"
            )
        oblong = sum(info.width != info.height for info in infos)
        if oblong:
            notes.append(
                f"{oblong:,} of {len(infos):,} images are not square; of each the centre square is used, or as much of "
                "it as --crop says"
            )
    transparent = sum(info.mode in TRANSPARENT for info in infos)
    if transparent:
        notes.append(f"{transparent:,} of {len(infos):,} images have transparency; it is read as white")
    turned = sum(info.turned for info in infos)
    if turned:
        notes.append(f"{turned:,} of {len(infos):,} images are turned or mirrored as their EXIF says")
    several = sum(info.frames > 1 for info in infos)
    if several:
        notes.append(f"{several:,} of {len(infos):,} images have several frames or pages; the first of each is read")
    white, note = white_of(infos)
    return Form(channels, size, white, tuple(choices), (*notes, *note))


def white_of(infos: Iterable[FileInfo]) -> tuple[int | None, tuple[str, ...]]:
    """Return the value of white in images of more than 8 bits (None if there are none), and what to say of it.

    For integers it is the largest value of 8, 10, 12, 14 or 16 bits that no pixel exceeds; for floating-point numbers
    it is 1 or 255.

    Raises:
        Error: what is white cannot be known.
    """
    peaks: dict[bool, list[int]] = {True: [], False: []}
    lows = []
    for info in infos:
        if info.peak is not None:
            peaks[info.mode == "F"].append(info.peak)
            lows.append(info.low or 0)
    floats, integers = peaks[True], peaks[False]
    if floats and integers:
        raise Error(
            f"{len(floats):,} images hold floating-point numbers and {len(integers):,} integers of more than 8 bits; "
            "convert them to one kind"
        )
    if floats:
        return _float_white(floats)
    if not integers:
        return None, ()
    top = max(integers)
    white = next((white for white in WHITES if top <= white), None)
    if white is None:
        raise Error(
            f"{len(integers):,} images have values up to {top}, more than 16 bits; convert them to 8 or 16 bits"
        )
    notes = []
    if white != WHITES[-1]:
        notes.append(f"{len(integers):,} images of more than 8 bits have values up to {top}; {white} is read as white")
    levels = nearest_level(top, white) - nearest_level(min(lows), white) + 1
    if levels < FEW_LEVELS:
        notes.append(
            f"{len(integers):,} images of more than 8 bits have values from {min(lows)} to {top}, which are {levels} "
            f"of the 256 levels between 0 and {white}; rescale the images to use all of them"
        )
    return white, tuple(notes)


def _float_white(peaks: list[int]) -> tuple[int, tuple[str, ...]]:
    top = max(peaks)
    unit, byte = FLOAT_WHITES
    # Between both the scale cannot be told.
    if not (top <= unit or byte // 2 < top <= byte):
        raise Error(
            f"{len(peaks):,} images hold floating-point numbers up to {top}, neither 0 to {unit} nor 0 to {byte}; "
            "scale them, or convert them to 8 or 16 bits"
        )
    white = unit if top <= unit else byte
    return white, (f"{len(peaks):,} images hold floating-point numbers up to {top}; {white} is read as white",)


def _is_gray(mode: str) -> bool:
    return mode in GRAY or mode.startswith("I")
