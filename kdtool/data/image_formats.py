"""Image files in every form that is read: opened safely, and brought to 8 bits, gray or RGB, as they are seen."""

from __future__ import annotations

import contextlib
import io
import re
import stat
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from kdtool.data.raw import FilePart, ImageSource, file_of
from kdtool.errors import Error
from kdtool.utils.formatting import printable

# An image inside of a larger file is read into memory before it is decoded.
LARGEST_PART = 2**28

# Pillow decodes these itself. It is never asked to find the format among all that it knows: for EPS it starts another
# program, and some formats are recognised in any file.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")

# Pillow's modes that can be converted to gray or RGB.
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "F")

# Transparent pixels are seen over white, as in a browser or on paper.
BACKGROUND = 255

# The value of white in images of floating-point numbers: those of 0..1 and those of 0..255.
FLOAT_WHITES = (1, 255)

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


@dataclass(frozen=True)
class Header:
    """What is known of an image without looking at its pixels.

    ``width`` and ``height`` are in pixels as the image is seen, after its EXIF orientation. ``mode`` is Pillow's, with
    A for transparency (LA, PA, RGBA) wherever the file stores it. ``peak`` is the largest pixel value, rounded up, for
    images of more than 8 bits or of floating-point numbers only, and ``low`` the smallest one, rounded down. ``frames``
    is 2 if there are more than one; only the first is read.
    """

    width: int
    height: int
    mode: str
    peak: int | None = None
    frames: int = 1
    low: int | None = None


def open_bytes(source: ImageSource) -> BinaryIO:
    """Open an image file, or read the part of a file that is one.

    Raises:
        OSError: it cannot be read.
        ValueError: the file ends before that part, or the part is larger than `LARGEST_PART`.
    """
    if not isinstance(source, FilePart):
        return open(source, "rb")
    if not 0 <= source.size <= LARGEST_PART:
        raise ValueError(f"it has {source.size:,} bytes, more than {LARGEST_PART >> 20} MiB")
    with open(source.path, "rb") as file:
        file.seek(source.start)
        content = file.read(source.size)
    if len(content) < source.size:
        raise ValueError("the file ends before the image")
    return io.BytesIO(content)


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
            yield image
    except Image.DecompressionBombError as error:
        raise Error(f"{name}: the image is too large to be read safely; make it smaller") from error
    except UnidentifiedImageError as error:
        reason = "it is damaged, or none of JPEG, PNG, BMP, GIF, WebP, TIFF, PPM, JPEG 2000, AVIF"
        raise Error(f"{name}: cannot be read as an image ({reason}); remove or replace it") from error
    except DAMAGE as error:
        reason = printable(" ".join(str(error).split()) or type(error).__name__)
        raise Error(f"{name}: cannot be read as an image ({reason}); remove or replace it") from error


def header_of(source: ImageSource) -> Header:
    """Return the header of an image file.

    Raises:
        Error: the file is not an image that can be read.
    """
    with open_image(source) as image:
        width, height = image.size
        if is_turned(image):
            width, height = height, width
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
            low, peak = _range(pixels_of(image), mode)
        return Header(width, height, mode, peak, 2 if several else 1, low)


def is_turned(image: ImageFile.ImageFile) -> bool:
    """Return whether width and height change places when the image is turned as its EXIF orientation says."""
    return _orientation(image) >= 5


def as_seen(image: Image.Image, mode: str, white: int | None) -> Image.Image:
    """Return an image in ``mode`` (L or RGB) with 8 bits, turned upright, and transparent pixels over white.

    ``white`` is the value of white in images of more than 8 bits (None stands for 65535) or of floating-point numbers.
    Their values become the nearest of the 256 levels.
    """
    transparent = image.info.get("transparency")
    if _deep_mode(image) is not None or image.mode == "F" or image.mode.startswith("I"):
        pixels = pixels_of(image)
        bands = image.mode if pixels.ndim == 3 else "L"
        seen = _eight_bits(pixels, bands, white, image.mode == "F")
        if transparent is not None:
            seen[np.atleast_3d(pixels == np.asarray(transparent)).all(-1)] = BACKGROUND
        flat: Image.Image = Image.frombytes(bands, image.size, seen.tobytes())
    else:
        image.load()  # a PNG may say only at its end what is transparent
        flat = image
    if flat.has_transparency_data:
        over = Image.new("RGBA", flat.size, (BACKGROUND,) * 4)
        over.alpha_composite(flat.convert("RGBA"))
        flat = over
    converted = flat.convert(mode)
    turn = TURNS.get(_orientation(image))
    return converted if turn is None else converted.transpose(turn)


def pixels_of(image: Image.Image) -> NDArray[np.generic]:
    """Return all bits of an image: [height, width] or [height, width, channels].

    Pillow keeps the upper 8 of 16 bits in colour; the lower ones are decoded again, with the order of bytes reversed.
    """
    deep = _deep_mode(image)
    if deep is None or not isinstance(image, ImageFile.ImageFile):
        return np.asarray(image)
    (form, order), file = deep, image.fp
    tiles, format_ = list(image.tile), image.format
    high = np.asarray(image).astype(np.uint16)
    assert file is not None
    file.seek(0)
    with Image.open(file, formats=(format_ or "",)) as again:
        # Pillow opens gray with transparency as RGBA: its four bytes are the two of gray and the two of transparency.
        raw = "RGBA" if form == "LA" else f"{form};16{OTHER_ORDER[order]}"
        again.tile = [tile._replace(args=_with_raw_mode(tile.args, raw)) for tile in tiles]
        low = np.asarray(again).astype(np.uint16)
    if form == "LA":
        gray, alpha = low[..., 0] << 8 | low[..., 1], low[..., 2] << 8 | low[..., 3]
        return np.stack([gray, gray, gray, alpha], -1)
    return high << 8 | low


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


def _deep_mode(image: Image.Image) -> tuple[str, str] | None:
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


def _colours(pixels: NDArray[np.generic], mode: str) -> NDArray[np.generic]:
    """Return the pixels without transparency."""
    return pixels[..., :-1] if pixels.ndim == 3 and mode.endswith(("A", "a", "X")) else pixels


def _range(pixels: NDArray[np.generic], mode: str) -> tuple[int, int]:
    """Return the smallest value, rounded down, and the largest one, rounded up."""
    colours = _colours(pixels, mode)
    low, high = float(colours.min()), float(colours.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("it has pixels that are no finite numbers")
    if low < 0:
        raise ValueError(f"it has negative pixel values, down to {low:g}; shift them to 0 and up")
    return int(np.floor(low)), int(np.ceil(high))


def _eight_bits(pixels: NDArray[np.generic], mode: str, white: int | None, floats: bool) -> NDArray[np.uint8]:
    known = white in FLOAT_WHITES if floats else white != FLOAT_WHITES[0]
    if not known:
        kind = "floating-point numbers" if floats else "integers"
        raise ValueError(f"its pixels are {kind}, which the network was not trained on")
    white = white or 65535
    if floats:
        return np.rint(np.asarray(pixels, np.float64) * (255 / white)).clip(0, 255).astype(np.uint8)
    whole = np.asarray(pixels, np.int64)
    scaled = nearest_level(whole, white)
    if mode.endswith(("A", "a")) and whole[..., -1].max() > white:
        scaled[..., -1] = nearest_level(whole[..., -1], 65535)
    return scaled.clip(0, 255).astype(np.uint8)


@overload
def nearest_level(values: int, white: int) -> int: ...
@overload
def nearest_level(values: NDArray[np.int64], white: int) -> NDArray[np.int64]: ...
def nearest_level(values: int | NDArray[np.int64], white: int) -> int | NDArray[np.int64]:
    """Return the level of 0..255 that is nearest to each value of 0..``white``; of two, the upper one."""
    return (values * 510 + white) // (2 * white)
