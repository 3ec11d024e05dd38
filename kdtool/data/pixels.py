"""Conversions of images in memory: channels, size, statistics, normalisation."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from kdtool.errors import UsageError

# The weights of Pillow's conversion to grayscale (ITU-R 601-2), in 16-bit fixed point.
LUMA = (19595, 38470, 7471)

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
