"""Seeded augmentation: a view is a pure function of the seed, its number and the image's index."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdtool.utils.seeds import derive

# Of the crops of large images: the area's share and the side ratio, as in Inception (Szegedy et al., 2015).
AREA = (0.08, 1.0)

RATIO = (3 / 4, 4 / 3)


def _generator(seed: int, view: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive("view", seed, view))


@dataclass(frozen=True)
class Shifts:
    """Where each image of a split is cropped out of its padded self (``top`` and ``left`` in pixels), and whether it is
    mirrored; int64 [images] and bool [images]."""

    top: Tensor
    left: Tensor
    mirrored: Tensor


def shifts(images: int, seed: int, view: int, *, padding: int, flip: bool) -> Shifts:
    """Draw one view's shifts of all images of a split, each 0 to ``2 * padding`` pixels."""
    generator = _generator(seed, view)
    top, left = torch.randint(0, 2 * padding + 1, (2, images), generator=generator)
    mirrored = torch.rand(images, generator=generator) < 0.5
    return Shifts(top, left, mirrored if flip else torch.zeros_like(mirrored))


def shifted(images: Tensor, indices: Tensor, view: Shifts, padding: int) -> Tensor:
    """Return a batch [batch, c, h, w] cropped out of its zero-padded self and mirrored, as the view of ``indices``
    [batch] says."""
    device = images.device
    batch, channels, height, width = images.shape
    if padding:
        padded = F.pad(images, (padding,) * 4)
        rows = padded.shape[2] * torch.arange(batch * channels, device=device).view(batch, channels, 1)
        rows = rows + view.top[indices].to(device).view(batch, 1, 1) + torch.arange(height, device=device)
        starts = rows * padded.shape[3] + view.left[indices].to(device).view(batch, 1, 1)
        # All rows of all crops are windows of one long line of pixels: one index_select copies them, with no
        # loop over images.
        windows = padded.flatten().unfold(0, width, 1)
        images = windows.index_select(0, starts.flatten()).view(batch, channels, height, width)
    mirrored = view.mirrored[indices].to(device)
    if not bool(mirrored.any()):
        return images
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)


@dataclass(frozen=True)
class Crop:
    """A part of an image: its area as a share, its ratio of width to height, its place (0..1 from the left and from
    the top of where it can be), and whether it is mirrored."""

    area: float
    ratio: float
    left: float
    top: float
    mirrored: bool

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return left, upper, right and lower in pixels of an image of that size."""
        area = self.area * width * height
        across = min(math.sqrt(area * self.ratio), width)
        down = min(math.sqrt(area / self.ratio), height)
        left, top = self.left * (width - across), self.top * (height - down)
        return left, top, left + across, top + down


def crops(images: int, seed: int, view: int, *, flip: bool) -> Tensor:
    """Draw one view's random resized crops of all images of a split, float64 [images, 5]; see `crop_of`."""
    drawn = torch.rand(images, 5, generator=_generator(seed, view), dtype=torch.float64)
    drawn[:, 0] = AREA[0] + (AREA[1] - AREA[0]) * drawn[:, 0]
    drawn[:, 1] = (math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * drawn[:, 1]).exp()
    drawn[:, 4] = (drawn[:, 4] < 0.5) if flip else 0.0
    return drawn


def crop_of(row: Tensor) -> Crop:
    """Return the crop of one image, a row of `crops`."""
    area, ratio, left, top, mirrored = row.tolist()
    return Crop(area, ratio, left, top, bool(mirrored))
