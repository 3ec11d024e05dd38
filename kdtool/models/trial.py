"""Trial runs: a network whose edits come from a file has to work, one that is written has to be what its file gives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdtool.errors import FAILURES, Error, first_line
from kdtool.models.no_init import on_meta
from kdtool.utils.seeds import seeded

# No layer of a network outputs maps of more than four times the pixels of its image (or of a small image), with as many
# channels as its widest weight; and none outputs more numbers than this for one image.
MORE_PIXELS, SMALL_IMAGE, MOST_NUMBERS = 4, 32 * 32, 1 << 27

SAME = 1e-3
"""The part of the largest output by which modules with the same layers may differ, as by their layout in memory."""


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


def check_same(module: nn.Module, rebuilt: nn.Module, image: tuple[int, int, int], name: str) -> None:
    """Check with images [channels, height, width] that a module computes what one rebuilt from its weights does.

    A module that cannot be copied is not checked.

    Raises:
        Error: it does not; its layers were changed, and not only its weights.
    """
    first = next(rebuilt.parameters(), torch.zeros(0))
    try:
        module = copy.deepcopy(module).to(first).eval()
    except FAILURES:  # it holds what cannot be copied, such as its maps of the last step
        return
    images = torch.randn(2, *image, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            ours, other = (_output(run, images) for run in (module, rebuilt))
        same = torch.allclose(
            ours, other, rtol=SAME, atol=SAME * float(other.abs().nan_to_num(0, 0).max()), equal_nan=True
        )
    except FAILURES:
        same = False
    if not same:
        raise Error(
            f"its layers were changed, and a checkpoint holds weights of {name} alone; take the "
            "change back, or give the network that you made to kdtool teacher"
        )


def _output(module: nn.Module, images: Tensor) -> Tensor:
    with seeded("trial"):  # some networks draw random numbers
        output: Tensor = module(images)
    return output
