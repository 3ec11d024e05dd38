"""How an image file becomes the pixels of a network's input, before it is normalised."""

from __future__ import annotations

from dataclasses import dataclass

# Pillow's names.
INTERPOLATION = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

# Images of more than 64 pixels are cropped to their centre (the usual 224 of 256 pixels). Smaller ones are not:
# every pixel of them counts.
SMALL = 64

CENTRE = 0.875


def default_crop(size: int) -> float:
    """Return the fraction of an image's shorter side that is used where nothing else is known."""
    return 1.0 if size <= SMALL else CENTRE


@dataclass(frozen=True)
class Preparation:
    """The centre square of an image, resized and converted.

    ``size`` is the side of the result in pixels, ``channels`` is 1 (gray) or 3 (colour). ``crop`` is the side of the
    square as a fraction of the image's shorter side, ``interpolation`` the filter that resizes it. ``white`` is the
    value of white in images of more than 8 bits; None stands for 65535.
    """

    size: int
    channels: int
    crop: float
    interpolation: str = "bilinear"
    white: int | None = None
