"""A trial run of a network whose edits come from a file: it has to work, and must not fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdtool.errors import FAILURES, Error, first_line
from kdtool.models.no_init import on_meta

# No layer of a network outputs maps of more than four times the pixels of its image (or of a small image), with as many
# channels as its widest weight; and none outputs more numbers than this for one image.
MORE_PIXELS, SMALL_IMAGE, MOST_NUMBERS = 4, 32 * 32, 1 << 27


class TooLargeError(Exception):
    """An operation would output too many numbers."""


class Bounded(TorchFunctionMode):
    """Refuse every operation whose result would have more than ``most`` numbers, before it runs."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Find the size of the result on the meta device, and call the function if it is not too large."""
        result = on_meta(func, args, kwargs or {}, least=1)
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, Tensor) and tensor.numel() > self.most:
                raise TooLargeError(f"{getattr(func, '__name__', 'a layer')} would output {tensor.numel():,} numbers")
        return func(*args, **(kwargs or {}))


def check_runs(module: nn.Module, image: tuple[int, int, int], classes: int, name: str) -> None:
    """Check with one image of zeros, [channels, height, width], that a network returns logits [1, classes].

    Raises:
        Error: it does not, so the edits and the shapes of the weights do not fit each other.
    """
    channels, height, width = image
    widest = max([channels, *(max(weight.shape, default=1) for weight in module.parameters())])
    most = min(MOST_NUMBERS, MORE_PIXELS * max(height * width, SMALL_IMAGE) * widest)
    try:
        with torch.no_grad(), Bounded(most):
            output = module(torch.zeros(1, *image))
        if isinstance(output, Tensor) and tuple(output.shape) == (1, classes):
            return
        reason = f"its output is {list(output.shape) if isinstance(output, Tensor) else type(output).__name__}"
    except (TooLargeError, *FAILURES) as error:
        reason = first_line(error)
    raise Error(f"{name}: the recorded edits and the weights do not fit each other: it does not run ({reason})")
