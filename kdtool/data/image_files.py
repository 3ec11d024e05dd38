"""Images read from files, or from parts of them, by worker processes if there are many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdtool.data.augmentation import Crop, crop_of, crops
from kdtool.data.changes import Changes
from kdtool.data.image_formats import as_seen, is_turned, open_image
from kdtool.data.preparation import Preparation
from kdtool.data.raw import ImageSource
from kdtool.errors import Error, UsageError, first_line
from kdtool.utils.processes import count_here, usable_cores

# For fewer images than this, starting worker processes takes longer than reading.
FEW = 256

# A device takes in photos faster than four processes read them (benchmarks/device.py).
MOST_WORKERS = 16


def read_image(source: ImageSource, prepared: Preparation, crop: Crop | None = None) -> Tensor:
    """Read one image file as uint8 [channels, size, size]: ``crop`` of it, or by default its centre square.

    Raises:
        Error: the file is damaged or not an image.
    """
    size = prepared.size
    with open_image(source) as image:
        # A JPEG decodes faster at 1/2, 1/4 or 1/8 of its size; draft picks the smallest that is large enough.
        turned = is_turned(image)
        width, height = (image.height, image.width) if turned else image.size
        left, upper, right, lower = _box(width, height, prepared, crop)
        wanted = math.ceil(width * size / (right - left)), math.ceil(height * size / (lower - upper))
        image.draft(None, wanted[::-1] if turned else wanted)  # type: ignore[arg-type]
        return prepared_pixels(image, prepared, crop)


def prepared_pixels(image: Image.Image, prepared: Preparation, crop: Crop | None = None) -> Tensor:
    """Return an open image as uint8 [channels, size, size]: ``crop`` of it, or by default its centre square."""
    seen = as_seen(image, "L" if prepared.channels == 1 else "RGB", prepared.white)
    how = Image.Resampling[prepared.interpolation.upper()]
    pixels = np.asarray(seen.resize((prepared.size,) * 2, how, box=_box(*seen.size, prepared, crop)))
    if crop is not None and crop.mirrored:
        pixels = pixels[:, ::-1]
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _box(width: int, height: int, prepared: Preparation, crop: Crop | None) -> tuple[float, float, float, float]:
    if crop is not None:
        return crop.box(width, height)
    side = min(width, height) * prepared.crop
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


class FileImages:
    """The images of a split, read from their files again for every batch."""

    def __init__(
        self,
        paths: tuple[ImageSource, ...],
        prepared: Preparation,
        *,
        seed: int = 0,
        flip: bool = False,
        augment: bool = False,
        changes: Changes | None = None,
    ) -> None:
        """Remember which files to read; without ``augment`` no view is cropped. ``changes`` are made of each view.

        Raises:
            UsageError: ``channels`` is neither 1 nor 3.
        """
        if prepared.channels not in (1, 3):
            raise UsageError(f"--in-channels {prepared.channels}: image files are read with 1 channel or 3")
        self.paths, self.prepared = paths, prepared
        self.seed, self.flip, self.augment, self.changes = seed, flip, augment, changes

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, chunks: Sequence[Tensor], view: int | None) -> Iterator[Tensor]:
        """Yield uint8 [batch, channels, size, size] for each tensor of indices [batch], in their order.

        Raises:
            Error: a file is damaged.
        """
        view_crops = None
        if view is not None and self.augment:
            view_crops = crops(len(self), self.seed, view, flip=self.flip)
        if view is not None and self.changes is not None:
            self.changes.load()
        count = sum(len(chunk) for chunk in chunks)
        loader = DataLoader(
            _Batches(self, view_crops, view),
            sampler=[chunk.tolist() for chunk in chunks],
            batch_size=None,
            num_workers=0 if count < FEW or len(chunks) < 2 else _workers(),
            # The loader draws a seed for its workers; its own generator keeps the global random state unchanged.
            generator=torch.Generator(),
        )
        batches = iter(loader)
        while True:
            try:
                batch = next(batches, None)
            except RuntimeError as error:
                raise Error(
                    f"reading images: {first_line(error)}; is there enough memory, and shared memory?"
                ) from error
            if batch is None:
                return
            if isinstance(batch, str):
                raise Error(batch)
            yield batch


class _Batches(Dataset[Tensor | str]):
    """Whole batches, read by a worker.

    An error is returned as its message: a raised one would reach the main process with the worker's traceback.
    """

    def __init__(self, images: FileImages, view_crops: Tensor | None, view: int | None) -> None:
        self.images, self.view_crops, self.view = images, view_crops, view

    def __getitem__(self, indices: list[int]) -> Tensor | str:  # type: ignore[override]
        images = self.images
        try:
            pixels = torch.stack(
                [
                    read_image(
                        images.paths[index],
                        images.prepared,
                        None if self.view_crops is None else crop_of(self.view_crops[index]),
                    )
                    for index in indices
                ]
            )
            if images.changes is None or self.view is None:
                return pixels
            return images.changes(pixels, torch.tensor(indices), self.view)
        except Error as error:
            return str(error)


def _workers() -> int:
    """Return the number of worker processes: one for each CPU that this process may use, at most `MOST_WORKERS`.

    The processes of one training on a machine share its CPUs (torchrun's LOCAL_WORLD_SIZE).
    """
    return max(1, min(MOST_WORKERS, usable_cores() // count_here()))
