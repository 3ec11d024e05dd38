"""Convolutions of small maps as products of matrices, without the weights that meet padding alone.

Libraries of convolutions are made for maps with many pixels. Networks made for 224 pixels have maps of 4 x 4 to 1 x 1
in their last stages when the images have 32, and most of their weights there: moving these between layouts, in each
pass, then takes longer than the arithmetic. The same convolution as one product of matrices, [pixels, taps x channels]
and [taps x channels, channels], takes the weights as they lie in memory.

On maps of 1 x 1 or 2 x 2 a kernel of 3 x 3 meets padding with 8 or 5 of its 9 weights, whatever the image is: they add
0 to the output, and their gradient is 0. They are left out.

What is computed is the same, but for rounding. benchmarks/small_maps.py measures what it brings.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from kdtool.models.layers import convolved_side

Sides = tuple[int, ...]
"""A number for the height and one for the width."""

# Smaller kernels stay in the processor's cache, and cost as little as cutting them does.
SMALLEST = 1 << 16

# A product pays for at most this many pixels of all maps of a batch for each channel that is put out: beyond, copying
# every pixel once for each tap takes longer than moving the weights does. Copies in half precision are half as long,
# and convolutions of larger maps waste less.
PIXELS_PER_CHANNEL = 4
PIXELS_PER_CHANNEL_IN_HALF = 8
PIXELS_PER_CHANNEL_OF_LARGER = 1
LARGER = 17

# A kernel of one tap copies nothing, and has no layout to change; convolutions are as fast where there is more to do.
PIXELS_OF_ONE_TAP = 4096


class Windows:
    """The pixels of an image that each pixel of a convolution's output is made of."""

    def __init__(self, size: Sides, kernel: Sides, padding: Sides, stride: Sides, dilation: Sides) -> None:
        """Find them; ``size`` is the image's height and width in pixels."""
        self.height, self.width = map(convolved_side, size, kernel, padding, stride, dilation)
        """Of the output."""
        self.taps, self.padding = kernel[0] * kernel[1], padding
        self.padded = (size[0] + 2 * padding[0]) * (size[1] + 2 * padding[1])
        self.sides = (size, kernel, padding, stride, dilation)

    @functools.cached_property
    def places(self) -> Tensor | None:
        """Places in the padded image, int64 [height x width x taps]; None if these are all places in their order."""
        size, kernel, padding, stride, dilation = self.sides
        with torch.inference_mode(False):  # they outlive the present mode
            rows, columns = (
                torch.arange(many)[:, None] * step + torch.arange(taps) * gap
                for many, step, taps, gap in zip((self.height, self.width), stride, kernel, dilation, strict=True)
            )
            places = (rows[:, None, :, None] * (size[1] + 2 * padding[1]) + columns[None, :, None, :]).flatten()
            return None if torch.equal(places, torch.arange(self.padded)) else places

    def pays(self, images: int, channels: int, *, half: bool) -> bool:
        """Return whether a product is faster for so many images and channels of the output."""
        size = self.height * self.width
        if self.taps == 1:
            return 0 < images * size <= PIXELS_OF_ONE_TAP
        most = PIXELS_PER_CHANNEL_IN_HALF if half else PIXELS_PER_CHANNEL
        return 0 < images * size <= channels * (most if size < LARGER else PIXELS_PER_CHANNEL_OF_LARGER)

    def convolve(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return out[b, o, y, x] = bias[o] + sum_(c, t) weight[o, c, t] image[b, c, place(y, x, t)]."""
        last = images.permute(0, 2, 3, 1)
        if any(self.padding):
            above, beside = self.padding
            last = F.pad(last, (0, 0, beside, beside, above, above))
        pixels = last.flatten(1, 2)
        if self.places is not None:
            pixels = pixels.index_select(1, self.places)
        columns = pixels.reshape(len(images), self.height, self.width, -1)
        return F.linear(columns, weight.permute(0, 2, 3, 1).flatten(1), bias).permute(0, 3, 1, 2)


windows = functools.lru_cache(maxsize=1024)(Windows)


@functools.lru_cache(maxsize=1024)
def cut(size: Sides, kernel: Sides, padding: Sides, *more: Sides) -> tuple[tuple[slice, ...], Sides] | None:
    """Return the rows and columns of a kernel that meet the image, and the padding left for them; None for all.

    ``size`` is the image's height and width in pixels, ``more`` are the stride and the dilation.
    """
    met = [part_that_meets(*sizes) for sizes in zip(size, kernel, padding, *more, strict=True)]
    if not any(met):
        return None
    parts = [part or (slice(None), whole) for part, whole in zip(met, padding, strict=True)]
    return tuple(part for part, _ in parts), tuple(left for _, left in parts)


def part_that_meets(size: int, kernel: int, padding: int, stride: int, dilation: int) -> tuple[slice, int] | None:
    """Return the weights along one side that meet the image anywhere, and the padding that is left for them.

    ``size`` is the image's length along that side in pixels. None if all weights meet it, or none.
    """
    places = range(convolved_side(size, kernel, padding, stride, dilation))
    met = [
        tap for tap in range(kernel) if any(0 <= place * stride - padding + tap * dilation < size for place in places)
    ]
    if not met or len(met) == kernel:
        return None
    left = padding - met[0] * dilation
    as_many = convolved_side(size, met[-1] - met[0] + 1, left, stride, dilation) == len(places)
    return (slice(met[0], met[-1] + 1), left) if left >= 0 and as_many else None
