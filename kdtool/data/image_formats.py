"""Image files in every form that is read: opened safely, and brought to 8 bits, gray or RGB, as they are seen."""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from kdtool.data.pixels import check_white, eight_bits, value_range
from kdtool.data.raw import ImageSource, file_of, open_bytes
from kdtool.errors import Error
from kdtool.utils.formatting import printable

# The most pixels of an image, so that reading it takes less than 1 GB. In colour Pillow takes 4 bytes for each, the
# result as many, twice if it is turned. A JPEG is decoded at a part of its size and may have twice as many; half as
# many those that are decoded twice (16 bits per channel in colour) or by decoders that take up to 25 bytes for each.
MOST_PIXELS = 2**26
LONGEST_SIDE = 2**16  # each row takes some memory too, however short it is

# A JPEG whose channels are not all in its first scan may go over its pixels any number of times; usual are about 10.
MOST_SCANNED = 100 * MOST_PIXELS
START_OF_SCAN, LEAST_SCAN = b"\xff\xda", 10

# Images are converted in bands of rows of about this many pixels, which bounds the memory of intermediate results.
BAND = 2**20

# Pillow decodes these itself. It is never asked to find the format among all that it knows: for EPS it starts another
# program, and some formats are recognised in any file.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")

# Pillow's modes that can be converted to gray or RGB.
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "F")

# Transparent pixels are seen over white, as in a browser or on paper.
BACKGROUND = 255

# Pillow's decoders raise any of these on a damaged file.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError,
          AssertionError, RuntimeError, struct.error)  # fmt: skip

# EXIF's orientations, by which transposition an image becomes what is seen.
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Where Pillow keeps what a file says of its orientation.
EXIF_PLACES = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}

EXIF_LOCK = threading.Lock()

# The raw modes of 16 bits per channel in colour, of which Pillow keeps the upper 8 bits.
DEEP = re.compile(r"(LA|RGB|RGBA|RGBa|RGBX|CMYK);16([BLN])")
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

Deep = tuple[str, str]
"""The channels and the order of bytes of an image in colour with 16 bits."""

Decoded = tuple[Image.Image, Image.Image | None]
"""An image, and for `Deep` the same with the other bits."""


@dataclass(frozen=True)
class Header:
    """What is known of an image without looking at its pixels.

    ``width`` and ``height`` are in pixels as the image is seen, after its EXIF orientation. ``mode`` is Pillow's, with
    A for transparency (LA, PA, RGBA) wherever the file stores it. ``peak`` is the largest pixel value, rounded up, for
    images of more than 8 bits or of floating-point numbers only, and ``low`` the smallest one, rounded down. ``frames``
    is 2 if there are more than one; only the first is read. ``turned`` says that EXIF has the image turned or mirrored.
    """

    width: int
    height: int
    mode: str
    peak: int | None = None
    frames: int = 1
    low: int | None = None
    turned: bool = False


@contextlib.contextmanager
def open_image(source: ImageSource) -> Iterator[ImageFile.ImageFile]:
    """Open an image file; nothing is decoded yet.

    Raises:
        Error: it is no file, no image of `FORMATS`, or so large that it would fill the memory; also if decoding it in
            the block fails.
    """
    name = printable(str(source), 400)
    try:
        # A pipe would wait for ever, and reading a device may do anything.
        if not stat.S_ISREG(file_of(source).stat().st_mode):
            raise Error(f"{name}: cannot be read as an image (it is no regular file); remove or replace it")
        with open_bytes(source) as file, Image.open(file, formats=FORMATS) as image:
            _check_size(image, file)
            yield image
    except Image.DecompressionBombError as error:
        reason = printable(str(error).partition(", could be")[0])
        raise Error(f"{name}: the image is too large to be read safely ({reason}); make it smaller") from error
    except UnidentifiedImageError as error:
        reason = "it is damaged, or none of JPEG, PNG, BMP, GIF, WebP, TIFF, PPM, JPEG 2000, AVIF"
        raise Error(f"{name}: cannot be read as an image ({reason}); remove or replace it") from error
    except DAMAGE as error:
        reason = printable(" ".join(str(error).split()) or type(error).__name__)
        raise Error(f"{name}: cannot be read as an image ({reason}); remove or replace it") from error


def _check_size(image: ImageFile.ImageFile, file: BinaryIO) -> None:
    pixels, most = math.prod(image.size), MOST_PIXELS
    if image.format == "TIFF":  # a tile is decoded as a whole, though it may be larger than the image
        tile = [image.tag_v2.get(tag) for tag in (322, 323)]  # type: ignore[attr-defined]  # its width and length
        pixels = max(pixels, math.prod(side for side in tile if isinstance(side, int)))
    if image.format in ("JPEG", "MPO"):
        most *= 2
        _check_scans(image, file, pixels)
    elif image.format in ("WEBP", "JPEG2000", "AVIF") or _deep_mode(image) is not None:
        most //= 2
    if pixels > most or max(image.size) > LONGEST_SIDE:
        limit = f"{most / 1e6:.0f} million, and {LONGEST_SIDE:,} a side"
        raise Image.DecompressionBombError(f"{pixels:,} pixels; at most {limit}")


def _check_scans(image: ImageFile.ImageFile, file: BinaryIO, pixels: int) -> None:
    layers, place = image.layers, file.tell()  # type: ignore[attr-defined]
    file.seek(max(0, place - 8 - 2 * layers))
    # A first scan of all channels is the only one, but not in a progressive JPEG.
    one = file.read(5) == START_OF_SCAN + bytes([0, 6 + 2 * layers, layers]) and not image.info.get("progressive")
    # Most files are too short for so many scans, and are not read as a whole for their header.
    if not one and file.seek(0, os.SEEK_END) // LEAST_SCAN * pixels > MOST_SCANNED:
        file.seek(0)
        if (scans := file.read().count(START_OF_SCAN)) * pixels > MOST_SCANNED:
            raise Image.DecompressionBombError(f"{pixels:,} pixels, decoded {scans:,} times")
    file.seek(place)


def header_of(source: ImageSource) -> Header:
    """Return the header of an image file.

    Raises:
        Error: the file is not an image that can be read.
    """
    with open_image(source) as image:
        turned = _orientation(image) > 1
        width, height = reversed(image.size) if is_turned(image) else image.size
        deep = _deep_mode(image)
        mode = "LA" if deep is not None and deep[0] == "LA" else image.mode
        if not (mode in MODES or mode.startswith("I")):
            raise ValueError(f"its colours are of the kind {mode}; save it as RGB")
        if image.has_transparency_data and not mode.startswith("I"):
            mode = {"1": "LA", "L": "LA", "P": "PA", "RGB": "RGBA"}.get(mode, mode)
        several = image.format != "MPO" and getattr(image, "is_animated", False)
        if image.format == "GIF" and several:
            image.seek(0)
        low = peak = None
        if deep is not None or mode == "F" or mode.startswith("I"):
            low, peak = value_range(_bands(_decoded(image), deep), mode)
        return Header(width, height, mode, peak, 2 if several else 1, low, turned)


def is_turned(image: ImageFile.ImageFile) -> bool:
    """Return whether width and height change places when the image is turned as its EXIF orientation says."""
    return _orientation(image) >= 5


def as_seen(image: Image.Image, mode: str, white: int | None) -> Image.Image:
    """Return an image in ``mode`` (L or RGB) with 8 bits, turned upright, and transparent pixels over white.

    ``white`` is the value of white in images of more than 8 bits (None stands for 65535) or of floating-point numbers.
    Their values become the nearest of the 256 levels.
    """
    deep, transparent = _deep_mode(image), image.info.get("transparency")
    decoded = _decoded(image)  # a PNG may say only at its end what is transparent
    eight = deep is None and image.mode != "F" and not image.mode.startswith("I")
    seen, top = Image.new(mode, image.size), 0
    for flat in _rows(image) if eight else _eight_bits(decoded, deep, white, transparent):
        if flat.has_transparency_data:
            over = Image.new("RGBA", flat.size, (BACKGROUND,) * 4)
            over.alpha_composite(flat.convert("RGBA"))
            flat = over
        seen.paste(flat if flat.mode == mode else flat.convert(mode), (0, top))
        top += flat.height
    turn = TURNS.get(_orientation(image))
    return seen if turn is None else seen.transpose(turn)


def _rows(image: Image.Image) -> Iterator[Image.Image]:
    """Yield a decoded image in bands of rows."""
    step = max(1, BAND // image.width)
    if step >= image.height:
        yield image
        return
    for top in range(0, image.height, step):
        yield image.crop((0, top, image.width, min(top + step, image.height)))


def _decoded(image: Image.Image) -> Decoded:
    """Decode an image, and once more for the rest of its bits if it is in colour with 16 bits.

    Pillow keeps the upper 8 of 16 bits in colour; the lower ones are decoded again, with the order of bytes reversed.
    """
    deep = _deep_mode(image)
    if deep is None or not isinstance(image, ImageFile.ImageFile):
        image.load()
        return image, None
    (form, order), file = deep, image.fp
    tiles, format_ = list(image.tile), image.format
    image.load()
    assert file is not None
    file.seek(0)
    with Image.open(file, formats=(format_ or "",)) as again:
        # Pillow opens gray with transparency as RGBA: its four bytes are the two of gray and the two of transparency.
        raw = "RGBA" if form == "LA" else f"{form};16{OTHER_ORDER[order]}"
        again.tile = [tile._replace(args=_with_raw_mode(tile.args, raw)) for tile in tiles]
        again.load()
    return image, again


def _bands(decoded: Decoded, deep: Deep | None) -> Iterator[NDArray[np.generic]]:
    """Yield all bits of a decoded image in bands: [rows, width] or [rows, width, channels]."""
    high, low = decoded
    if low is None or deep is None:
        yield from map(np.asarray, _rows(high))
        return
    for upper, lower in zip(_rows(high), _rows(low), strict=True):
        parts = np.asarray(lower).astype(np.uint16)
        if deep[0] == "LA":
            gray, alpha = parts[..., 0] << 8 | parts[..., 1], parts[..., 2] << 8 | parts[..., 3]
            yield np.stack([gray, gray, gray, alpha], -1)
        else:
            yield np.asarray(upper).astype(np.uint16) << 8 | parts


def _orientation(image: Image.Image) -> int:
    # Pillow turns TIFF itself.
    if image.format == "TIFF" or not EXIF_PLACES & image.info.keys():
        return 1
    try:
        # Pillow warns of malformed EXIF, which many photographs have. Filters of warnings belong to all threads.
        with EXIF_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Not the method of PNG files, which would decode the pixels to look behind them.
            value = Image.Image.getexif(image).get(ORIENTATION, 1)
    except DAMAGE:
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def _deep_mode(image: Image.Image) -> Deep | None:
    """Return the channels and the order of bytes of an image in colour with 16 bits, None for other images."""
    if not isinstance(image, ImageFile.ImageFile):  # it is decoded already
        return None
    if not image.mode.startswith(("RGB", "CMYK")) or not getattr(image, "tile", None):
        return None
    arguments = image.tile[0].args
    if image.format == "PPM" and not isinstance(arguments, str) and arguments and arguments[-1] in range(256, 65536):
        raise ValueError("PPM in colour of more than 8 bits is not read; save it as PNG")
    if image.format == "TIFF" and image.tag_v2.get(284) == 2 and max(image.tag_v2.get(258, (8,))) > 8:  # type: ignore[attr-defined]
        raise ValueError("TIFF of more than 8 bits with its channels apart is not read; save it as PNG")
    raw = arguments if isinstance(arguments, str) or not arguments else arguments[0]
    match = DEEP.fullmatch(raw) if isinstance(raw, str) else None
    return None if match is None else (match[1], match[2])


def _with_raw_mode(arguments: tuple[Any, ...] | str | None, raw: str) -> tuple[Any, ...] | str:
    return (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw


def _eight_bits(decoded: Decoded, deep: Deep | None, white: int | None, transparent: Any) -> Iterator[Image.Image]:
    """Yield an image of more than 8 bits, or of floating-point numbers, with 8 bits in bands of rows."""
    mode, floats = decoded[0].mode, decoded[0].mode == "F"
    check_white(white, floats)
    white = white or 65535
    # Transparency has the scale of white, or all 16 bits.
    alpha = deep is not None and mode.endswith(("A", "a"))
    full = alpha and white < 65535 and any(pixels[..., -1].max() > white for pixels in _bands(decoded, deep))  # type: ignore[operator]
    for pixels in _bands(decoded, deep):
        seen = eight_bits(pixels, white, floats=floats, full=full)
        if transparent is not None:
            seen[np.atleast_3d(pixels == np.asarray(transparent)).all(-1)] = BACKGROUND
        yield Image.frombytes(mode if seen.ndim == 3 else "L", (decoded[0].width, len(seen)), seen.tobytes())
