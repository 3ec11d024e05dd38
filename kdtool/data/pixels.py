"""Conversions of images in memory: channels, size, levels of gray, statistics, normalisation."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kdtool.errors import UsageError

# The weights of Pillow's conversion to grayscale (ITU-R 601-2), in 16-bit fixed point.
LUMA = (19595, 38470, 7471)

# The value of white in images of floating-point numbers: those of 0..1 and those of 0..255.
FLOAT_WHITES = (1, 255)

# Images are converted in chunks of at most this many, which bounds the memory of intermediate results.
CHUNK = 4096


def check_channels(has: int, wanted: int) -> None:
    """Check that images of ``has`` channels can be converted to ``wanted`` channels.

    Raises:
        UsageError: they cannot; only 1 to any number, 3 to 1 and no change are possible.
    """
    if has not in (1, wanted) and (has, wanted) != (3, 1):
        raise UsageError(f"--in-channels {wanted}: the images have {has} channels and cannot be converted")


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Return uint8 images [images, channels, height, width]: gray is repeated, colour becomes its luma.

    Raises:
        UsageError: the conversion is neither of these, see `check_channels`.
    """
    check_channels(images.shape[1], channels)
    has = images.shape[1]
    if has == channels:
        return images
    if has == 1:
        return images.expand(-1, channels, -1, -1).contiguous()
    weights = torch.tensor(LUMA, dtype=torch.int32).view(1, 3, 1, 1)
    sums = ((chunk.int() * weights).sum(1, keepdim=True) for chunk in images.split(CHUNK))
    return torch.cat([(chunk + 2**15 >> 16).to(torch.uint8) for chunk in sums])


def resized(images: Tensor, size: int, interpolation: str = "bilinear") -> Tensor:
    """Return the centre squares of uint8 images [images, channels, height, width], resized to ``size`` pixels.

    The result is uint8 [images, channels, size, size]; the interpolation is bilinear or bicubic, and antialiased.

    Raises:
        UsageError: the interpolation is another one.
    """
    height, width = images.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[:, :, top : top + side, left : left + side]
    if side == size:
        return images.contiguous()
    if interpolation not in ("bilinear", "bicubic"):
        raise UsageError(f"--interpolation {interpolation}: images in memory are resized by bilinear or bicubic")
    chunks = [
        F.interpolate(chunk, size=(size, size), mode=interpolation, antialias=True) for chunk in images.split(CHUNK)
    ]
    return torch.cat(chunks)


def statistics(batches: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of every channel of uint8 batches [batch, channels, height, width].

    Both are for images in 0..1. A constant channel gets a deviation of one gray level, so that it can be divided by.
    """
    # Histograms of integers are exact, whatever the number of pixels.
    counts = sum(
        torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in batch.unbind(1)])
        for batch in batches
    )
    values = torch.arange(256, dtype=torch.float64) / 255
    share = torch.as_tensor(counts, dtype=torch.float64)
    share = share / share.sum(1, keepdim=True)
    mean = (share * values).sum(1, keepdim=True)
    std = (share * (values - mean) ** 2).sum(1).sqrt().clamp_min(1 / 255)
    return _rounded(mean.flatten()), _rounded(std)


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.tolist())


def statistics_for(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return published statistics for another number of channels, converted like the images.

    The deviation of a luma assumes that the colours are fully correlated, which is nearly true of photographs.
    """
    if len(mean) == channels:
        return mean, std
    if len(mean) == 1:
        return mean * channels, std * channels
    weights = [weight / 2**16 for weight in LUMA]
    return (
        (round(sum(w * m for w, m in zip(weights, mean, strict=True)), 6),),
        (round(sum(w * s for w, s in zip(weights, std, strict=True)), 6),),
    )


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (image / 255 - mean) / std in float32 for uint8 images [images, channels, height, width]."""
    factor, offset = _factor_and_offset(mean, std, images.device)
    return images.float().mul_(factor).sub_(offset)


@functools.lru_cache(maxsize=16)  # a copy to a GPU in every step would wait for all that it does
def _factor_and_offset(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # they outlive the present mode
        centre, spread = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
        return (1 / (255 * spread)).to(device), (centre / spread).to(device)


def check_white(white: int | None, floats: bool) -> None:
    """Check that ``white`` is a value of white for floating-point numbers, or else for integers.

    Raises:
        ValueError: it is not.
    """
    known = white in FLOAT_WHITES if floats else white != FLOAT_WHITES[0]
    if not known:
        kind = "floating-point numbers" if floats else "integers"
        raise ValueError(f"its pixels are {kind}, which the network was not trained on")


def _colours(pixels: NDArray[np.generic], mode: str) -> NDArray[np.generic]:
    """Return the pixels without transparency."""
    return pixels[..., :-1] if pixels.ndim == 3 and mode.endswith(("A", "a", "X")) else pixels


def value_range(bands: Iterable[NDArray[np.generic]], mode: str) -> tuple[int, int]:
    """Return the smallest value, rounded down, and the largest one, rounded up, of an image in bands.

    Transparency is left out if Pillow's ``mode`` has it.

    Raises:
        ValueError: they have no meaning as gray.
    """
    ends = np.array([(colours.min(), colours.max()) for colours in (_colours(pixels, mode) for pixels in bands)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("it has pixels that are no finite numbers")
    if low < 0:
        raise ValueError(f"it has negative pixel values, down to {low:g}; shift them to 0 and up")
    return int(np.floor(low)), int(np.ceil(high))


def eight_bits(pixels: NDArray[np.generic], white: int, *, floats: bool, full: bool) -> NDArray[np.uint8]:
    """Return the nearest of 256 levels for each value; with ``full`` the last channel has all 16 bits."""
    if floats:
        return np.rint(np.asarray(pixels, np.float64) * (255 / white)).clip(0, 255).astype(np.uint8)
    whole = np.asarray(pixels, np.int64)
    scaled = nearest_level(whole, white)
    if full:
        scaled[..., -1] = nearest_level(whole[..., -1], 65535)
    return scaled.clip(0, 255).astype(np.uint8)


@overload
def nearest_level(values: int, white: int) -> int: ...
@overload
def nearest_level(values: NDArray[np.int64], white: int) -> NDArray[np.int64]: ...
def nearest_level(values: int | NDArray[np.int64], white: int) -> int | NDArray[np.int64]:
    """Return the level of 0..255 that is nearest to each value of 0..``white``; of two, the upper one."""
    return (values * 510 + white) // (2 * white)
