"""The kernels of a function on a CUDA device, recorded once and launched again as a whole (a CUDA graph)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from kdtool.errors import first_line

Result = TypeVar("Result")

# Packages in which no network and no loss decides anything in Python from step to step: what one call of them asks of
# the device is what every call asks.
KNOWN = (
    "kdtool",
    "kdtool_distillers",
    "kdtool_pruners",
    "kdtool_refiners",
    "kdtool_teachers",
    "timm",
    "torch",
    "torchvision",
)


class NotRecordedError(Exception):
    """A function cannot be recorded; the message says why."""


class Recording(Generic[Result]):
    """One call of a function, without arguments, on a CUDA device.

    The function is run once, and what it asks of the device is kept instead of done; `replay` lets the device do it. It
    reads and writes the same memory each time. A device computes the layers of a small network faster than a processor
    can launch them one by one: ``benchmarks/device.py`` has the ratios.
    """

    def __init__(self, function: Callable[[], Result], device: torch.device, pool: Any = None) -> None:
        """Record ``function``; recordings that share a ``pool`` share memory, and only the last replayed one is whole.

        Raises:
            NotRecordedError: the function waits for the device, or does something else that cannot be recorded.
        """
        self.graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
        before = generator.clone_state()
        try:
            with torch.cuda.device(device), torch.cuda.graph(self.graph, pool=pool):
                self.result = function()
        except Exception as error:
            # A recording that was broken off leaves the generator in a state in which it refuses to draw.
            generator.graphsafe_set_state(before)
            raise NotRecordedError(first_line(error)) from error

    def replay(self) -> Result:
        """Let the device do what was recorded, and return the function's result, whose tensors have new values."""
        self.graph.replay()
        return self.result


class Copies:
    """Tensors in memory of their own, which a recorded function reads; others of the same form are copied there."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Copy ``tensors``, which lie on the device."""
        self.tensors = [tensor.clone() for tensor in tensors]

    def take(self, tensors: Sequence[Tensor]) -> None:
        """Take over the values of others."""
        for kept, tensor in zip(self.tensors, tensors, strict=True):
            kept.copy_(tensor)


def form(tensors: Iterable[Tensor]) -> tuple[Any, ...]:
    """Return what tensors must have in common so that one can be copied to the place of another."""
    return tuple((tensor.dtype, tensor.shape, tensor.stride(), tensor.device) for tensor in tensors)


def unknown_code(modules: Iterable[nn.Module], *others: object) -> str | None:
    """Return the name of a class of ``modules`` or ``others`` that is from none of the packages `KNOWN`, or None."""
    layers = {type(layer) for module in modules for layer in module.modules()}
    for kind in [*layers, *(type(other) for other in others if other is not None)]:
        if kind.__module__.partition(".")[0] not in KNOWN:
            return kind.__qualname__
    return None
