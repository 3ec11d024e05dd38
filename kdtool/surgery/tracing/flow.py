"""What is known of the channels that layers keep, and how a network is made to show it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdtool.models.layers import LAYERS
from kdtool.surgery.tracing.differences import noise, restricted

Cuts = dict[str, tuple[tuple[int, ...], dict[int, Tensor]]]
"""The shape that a tensor had, by its path, and what stays of its dimensions."""

Choose = Callable[[str, nn.Module], Tensor]
"""Returns the output channels that a mixing layer keeps."""


@dataclass
class Flow:
    """The channels that layers keep, by path; a layer that is not in here was not seen, or not understood."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    tensors: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    """For parameters and buffers of layers that work channel by channel: kept indices by dimension."""
    single: set[str] = field(default_factory=set)
    """Mixing layers that are given one row of channels for each image, such as a class token."""
    answers: dict[tuple[str, int], Answer] = field(default_factory=dict)
    """What each layer was given and answered, by its path and the number of the call."""
    calls: Counter[str] = field(default_factory=Counter)
    conflicts: set[str] = field(default_factory=set)
    """Layers that run more than once and would have to keep different channels, or behind which channels are summed up
    of which others do not stay."""
    unknown: set[str] = field(default_factory=set)
    """Layers whose input channels were mixed on the way, so that nothing is known of them."""
    products: list[tuple[float, int]] = field(default_factory=list)
    """Of each matrix product of the network's own code, the mean and how many channels it sums over."""
    cuts: Cuts = field(default_factory=dict)
    """What was cut of the tensors of other layers."""
    last: str = ""

    def count(self, path: str) -> int:
        """Return how many times a layer was called before, and count one more."""
        self.calls[path] += 1
        self.last = path
        return self.calls[path] - 1

    def behind(self) -> None:
        """Note a conflict behind the layer that was called last."""
        self.conflicts.add(f"what follows {self.last}")


@dataclass(frozen=True)
class Answer:
    """One call of a layer: the shape of its output [2b, ...], the channels' dimension and those that it keeps there,
    the input channels it keeps (None where they are not known), and each input channel's mean. ``rows`` are what stays
    of other dimensions, where channels stand in them (a layer that mixes tokens)."""

    shape: tuple[int, ...]
    dim: int
    outputs: Tensor
    inputs: Tensor | None
    means: Tensor
    rows: dict[int, Tensor] = field(default_factory=dict)
    paired: bool = True
    """Whether it was a batch of the two images, not something that all images share."""


@contextlib.contextmanager
def positive(module: nn.Module, cuts: Cuts | None = None) -> Iterator[None]:
    """Set all tensors outside of the mixing layers such that a difference passes (zeroed gains let none through).

    Parameters become noise, the same for each path; those of a network that was cut, the kept part of it.
    """
    saved: list[tuple[Tensor, Tensor]] = []
    for path, part in module.named_modules():
        if isinstance(part, LAYERS):
            continue
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            persistent = name not in part._non_persistent_buffers_set
            if tensor is None or not tensor.is_floating_point() or not persistent:
                continue
            saved.append((tensor, tensor.detach().clone()))
            if isinstance(tensor, nn.Parameter):
                full = f"{path}.{name}".removeprefix(".")
                shape, kept = (cuts or {}).get(full, (tuple(tensor.shape), {}))
                tensor.copy_(restricted(noise(full, 0, shape), kept))
            else:
                tensor.fill_(0 if name == "running_mean" else 1)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in saved:
                tensor.copy_(value)
