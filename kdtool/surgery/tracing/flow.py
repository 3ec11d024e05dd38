"""What a trace knows about the channels of a network, and the preparation of the network for it."""

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
"""By the path of a tensor: its shape before the cut, and the kept indices by dimension."""

Choose = Callable[[str, nn.Module], Tensor]
"""Returns the output channels that the layer at a path keeps. The layer is a convolution or linear layer, a recurrent
layer, or a `torch.nn.MultiheadAttention`; of the last two it is the channels of their inner width."""


@dataclass
class Flow:
    """The channels that layers keep, by path. A layer that is missing was not called, or was not understood."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    tensors: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    """For parameters and buffers of layers that work channel by channel: kept indices by dimension."""
    single: set[str] = field(default_factory=set)
    """Convolutions and linear layers that receive a single row of channels for each image, such as a class token."""
    answers: dict[tuple[str, int], Answer] = field(default_factory=dict)
    """The calls of the layers, by the layer's path and the number of the call."""
    calls: Counter[str] = field(default_factory=Counter)
    conflicts: set[str] = field(default_factory=set)
    """Where the channels do not fit together: layers that run more than once and would have to keep other channels each
    time, and products whose two sides lose different channels."""
    unknown: set[str] = field(default_factory=set)
    """Layers whose inputs mix lost and kept channels, so that it is unknown which of them to keep."""
    products: list[tuple[float, int]] = field(default_factory=list)
    """For each matrix product in the network's own code: its mean, and the number of channels that it sums over."""
    cuts: Cuts = field(default_factory=dict)
    """How the tensors outside of convolutions, linear and recurrent layers were cut."""
    last: str = ""
    """The path of the layer that was called last."""

    def count(self, path: str) -> int:
        """Return how many times a layer was called before, and count this call."""
        self.calls[path] += 1
        self.last = path
        return self.calls[path] - 1

    def behind(self) -> None:
        """Record a conflict in the layers after the one that was called last."""
        self.conflicts.add(f"the layers after {self.last}")


@dataclass(frozen=True)
class Answer:
    """One call of a layer: what it received, and what it returned."""

    shape: tuple[int, ...]
    """The shape of the output [2b, ...]."""
    dim: int
    """The dimension of the channels."""
    outputs: Tensor
    """The output channels that the layer keeps."""
    inputs: Tensor | None
    """The input channels that the layer keeps; None if unknown."""
    means: Tensor
    """The mean of each input channel."""
    rows: dict[int, Tensor] = field(default_factory=dict)
    """The kept indices of other dimensions, in which a layer that mixes tokens has channels."""
    paired: bool = True
    """Whether the input was a batch of the two images, and not something that all images share."""


@contextlib.contextmanager
def positive(module: nn.Module, cuts: Cuts | None = None) -> Iterator[None]:
    """Set all tensors outside of convolutions, linear and recurrent layers so that differences pass; restore them.

    A gain of zero, for example, would stop every difference. Parameters become `noise`, which depends on their paths.
    ``cuts`` says which part of that noise the parameters of a cut network get.
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
            # A tensor that several modules share was saved for each of them; only the first time it had its own values.
            for tensor, value in reversed(saved):
                tensor.copy_(value)
