"""Transforms of torchvision that draw their random numbers for one image, and change many images together later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Step = tuple[Any, ...]
"""The arguments of one change of an image, such as the name of an operation and its magnitude."""


class Deferred:
    """A transform of torchvision, apart in what it draws and what it then does.

    One operation on many images takes a fraction of the time that it takes on one after another, and gives the same
    pixels.
    """

    def __init__(self, transform: Any, method: str) -> None:
        """Keep the arguments of the calls of ``transform.method``, which changes an image, instead of calling it."""
        self.transform = transform
        self._change = getattr(transform, method, None)
        self._steps: list[Step] = []
        self._constant: dict[str, Any] = {}
        setattr(transform, method, self._keep)

    def _keep(self, image: Tensor, *step: Any, **constant: Any) -> Tensor:
        self._steps.append(step)
        self._constant = constant
        return image

    def draw(self, image: Tensor) -> list[Step]:
        """Return what would be done with an image [channels, height, width], drawn by torch's global generator."""
        self._steps = []
        changed = self.transform(image)
        if changed is not image:  # a release of torchvision whose transform has no such method changes it at once
            image.copy_(changed)
        return self._steps

    def change(self, image: Tensor, step: Step) -> Tensor:
        """Return images [..., channels, height, width] after one step."""
        assert self._change is not None
        changed: Tensor = self._change(image, *step, **self._constant)
        return changed

    def change_all(self, images: Tensor, steps: Sequence[Sequence[Step]]) -> None:
        """Change images [batch, channels, height, width] in place by the steps of each, which have to be hashable."""
        for number in range(max(map(len, steps), default=0)):
            alike: dict[Step, list[int]] = defaultdict(list)
            for row, of_image in enumerate(steps):
                if number < len(of_image):
                    alike[of_image[number]].append(row)
            for step, rows in alike.items():
                if len(rows) == 1:
                    images[rows[0]] = self.change(images[rows[0]], step)
                else:
                    where = torch.tensor(rows)
                    images.index_copy_(0, where, self.change(images.index_select(0, where), step))
