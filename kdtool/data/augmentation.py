"""Seeded augmentation: a view is a pure function of the seed, the view's number and the image's index."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdtool.utils.seeds import derive

# Random crops of large images: fraction of the area, and width over height, as in Inception (Szegedy et al., 2015).
AREA = (0.08, 1.0)

RATIO = (3 / 4, 4 / 3)


def _generator(seed: int, view: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive("view", seed, view))


@dataclass(frozen=True)
class Shifts:
    """Where each image of a split is cropped after padding, and whether it is mirrored.

    ``top`` and ``left`` are int64 [images], in pixels of the padded image; ``mirrored`` is bool [images].
    """

    top: Tensor
    left: Tensor
    mirrored: Tensor


def shifts(images: int, seed: int, view: int, *, padding: int, flip: bool) -> Shifts:
    """Draw the shifts of one view for all images of a split, each 0 to ``2 * padding`` pixels."""
    generator = _generator(seed, view)
    top, left = torch.randint(0, 2 * padding + 1, (2, images), generator=generator)
    return Shifts(top, left, _mirrored(images, seed, view) if flip else torch.zeros(images, dtype=torch.bool))


def _mirrored(images: int, seed: int, view: int) -> Tensor:
    """Draw which images of a view are mirrored, bool [images].

    A coin decides for view 0, and every image is mirrored in every other view from there on: two epochs in a row show
    both sides of it, where coins for each view would show the same one again half of the time (Jordan, 2024,
    arXiv:2404.00498). Of an odd number of views that recur, the last and the first show the same side.
    """
    coin = torch.rand(images, generator=torch.Generator().manual_seed(derive("mirror", seed))) < 0.5
    return coin ^ bool(view % 2)


def shifted(images: Tensor, indices: Tensor, view: Shifts, padding: int) -> Tensor:
    """Return a batch [batch, channels, height, width], zero-padded, cropped back to its size and mirrored.

    ``indices`` [batch] are the images' places in ``view``, both on the CPU; ``padding`` is in pixels.
    """

    def there(values: Tensor) -> Tensor:
        return values.to(images.device, non_blocking=True)  # else each batch would wait for all that the device does

    device = images.device
    batch, channels, height, width = images.shape
    if padding:
        padded = F.pad(images, (padding,) * 4)
        rows = padded.shape[2] * torch.arange(batch * channels, device=device).view(batch, channels, 1)
        rows = rows + there(view.top[indices]).view(batch, 1, 1) + torch.arange(height, device=device)
        starts = rows * padded.shape[3] + there(view.left[indices]).view(batch, 1, 1)
        # Flattened, every row of every crop is a window of one long vector of pixels: one index_select copies all
        # of them without a loop over images.
        windows = padded.flatten().unfold(0, width, 1)
        images = windows.index_select(0, starts.flatten()).view(batch, channels, height, width)
    mirrored = view.mirrored[indices]
    if not bool(mirrored.any()):
        return images
    return torch.where(there(mirrored).view(-1, 1, 1, 1), images.flip(-1), images)


@dataclass(frozen=True)
class Crop:
    """A part of an image, and whether it is mirrored.

    ``area`` is a fraction of the image's area, ``ratio`` is width over height. ``left`` and ``top`` are in 0..1: 0 is
    the leftmost (topmost) place where the crop fits into the image, 1 the rightmost (lowest).
    """

    area: float
    ratio: float
    left: float
    top: float
    mirrored: bool

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the left, upper, right and lower edge in pixels, for an image of ``width`` by ``height`` pixels."""
        area = self.area * width * height
        crop_width = min(math.sqrt(area * self.ratio), width)
        crop_height = min(math.sqrt(area / self.ratio), height)
        left, top = self.left * (width - crop_width), self.top * (height - crop_height)
        return left, top, left + crop_width, top + crop_height


def crops(images: int, seed: int, view: int, *, flip: bool) -> Tensor:
    """Draw the random resized crops of one view for all images of a split, float64 [images, 5]; see `crop_of`."""
    drawn = torch.rand(images, 5, generator=_generator(seed, view), dtype=torch.float64)
    drawn[:, 0] = AREA[0] + (AREA[1] - AREA[0]) * drawn[:, 0]
    drawn[:, 1] = (math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * drawn[:, 1]).exp()
    drawn[:, 4] = _mirrored(images, seed, view) if flip else 0.0
    return drawn


def crop_of(row: Tensor) -> Crop:
    """Return the crop of one image from its row of `crops`, float64 [5]."""
    area, ratio, left, top, mirrored = row.tolist()
    return Crop(area, ratio, left, top, bool(mirrored))
