"""One image as a network expects it, in the same way as the images of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdtool.data.image_files import prepared_pixels, read_image
from kdtool.data.pixels import normalised, resized, with_channels
from kdtool.data.preparation import Preparation
from kdtool.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Transform:
    """Prepare and normalise one image; ``mean`` and ``std`` have one number per channel, for images in 0..1."""

    preparation: Preparation
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: str | Path | Image.Image | NDArray[Any] | Tensor) -> Tensor:
        """Return float32 [channels, size, size].

        ``image`` is the path of a file, an image of Pillow, a uint8 array [height, width] or [height, width, channels],
        or a uint8 tensor [channels, height, width]. A tensor is resized as images in memory are, such as those of
        MNIST; all others as image files are.

        Raises:
            kdtool.Error: the file is no image, or damaged.
            kdtool.UsageError: the image is none of these, or is not uint8.
        """
        return normalised(self.pixels(image)[None], self.mean, self.std)[0]

    def pixels(self, image: str | Path | Image.Image | NDArray[Any] | Tensor) -> Tensor:
        """Return the prepared image before it is normalised, uint8 [channels, size, size]."""
        prepared = self.preparation
        if isinstance(image, str | Path):
            return read_image(Path(image), prepared)
        if isinstance(image, Tensor):
            if image.dtype != torch.uint8 or image.dim() != 3:
                raise UsageError(f"image: expected uint8 [channels, height, width], got {_described(image)}")
            how = prepared.interpolation if prepared.interpolation == "bicubic" else "bilinear"
            return resized(with_channels(image[None].cpu(), prepared.channels), prepared.size, how)[0]
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,), (4,)):
                raise UsageError(f"image: expected uint8 [height, width, channels], got {_described(image)}")
            image = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
        if not isinstance(image, Image.Image):
            raise UsageError(f"image: expected a path, an image or an array of uint8, got {type(image).__name__}")
        return prepared_pixels(image, prepared)


def _described(image: Any) -> str:
    return f"{str(image.dtype).removeprefix('torch.')} {list(image.shape)}"
