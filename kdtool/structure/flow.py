"""Which channels every layer would lose when the layers before it lose some of theirs: found by running the network.

No graph is traced. One forward pass carries a pair of images in one batch, which differ nowhere but in the channels
that are to be removed: every convolution and linear layer answers the same random numbers for both, plus a
difference in the output channels that it is to lose. Whatever lies between (activations, pools, additions,
concatenations, shuffles, flattening, reshaping) moves the difference along by itself, so each layer's input shows
which of its channels come from removed ones. The stem's input shows no difference at all and is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.structure.select import ChannelSelect

MIXING = (nn.modules.conv._ConvNd, nn.Linear)
"""Layers whose every output depends on many input channels."""

Choose = Callable[[str, nn.Module], Tensor]
"""Returns the output channels that a mixing layer keeps."""


@dataclass
class Flow:
    """The channels that layers keep, by path; a layer that is not in here was not seen, or not understood."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    tensors: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    """For parameters and buffers of layers that work channel by channel: kept indices by dimension."""
    seen: set[str] = field(default_factory=set)
    conflicts: set[str] = field(default_factory=set)
    """Layers that run more than once and would have to keep different channels."""


def trace(module: nn.Module, shape: tuple[int, int, int], choose: Choose) -> Flow:
    """Return the channels that the layers of ``module`` keep when each mixing layer keeps those that ``choose`` says.

    The module is in eval mode and comes back as it was. ``shape`` is channels, height, width of an image.

    Raises:
        RuntimeError: or whatever else the network's own forward raises.
    """
    flow = Flow()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, *shape, generator=generator)
    with torch.no_grad(), _positive(module, generator), _patched(module, _Probe(flow, choose, generator)):
        module(torch.cat([image, image]))
    return flow


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a convolution's every output channel depends on one input channel alone."""
    return (
        isinstance(layer, nn.modules.conv._ConvNd)
        and layer.groups > 1
        and layer.groups == layer.in_channels
        and layer.out_channels % layer.in_channels == 0
    )


def is_channelwise(module: nn.Module) -> bool:
    """Whether a layer has tensors of its own, mixes nothing and holds no other layer with parameters."""
    own = [*module._parameters.values(), *module._buffers.values()]
    return (
        any(tensor is not None for tensor in own)
        and not isinstance(module, MIXING)
        and not any(True for child in module.children() for _ in child.parameters())
    )


@contextlib.contextmanager
def _positive(module: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Make all tensors outside of the mixing layers such that a difference passes (zeroed gains let none through)."""
    saved: list[tuple[Tensor, Tensor]] = []
    for part in module.modules():
        if isinstance(part, MIXING):
            continue
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            persistent = name not in part._non_persistent_buffers_set
            if tensor is None or not tensor.is_floating_point() or not persistent:
                continue
            saved.append((tensor, tensor.detach().clone()))
            zero = name == "running_mean"
            tensor.copy_(torch.zeros(()) if zero else torch.rand(tensor.shape, generator=generator) + 0.5)
    try:
        yield
    finally:
        for tensor, value in saved:
            tensor.copy_(value)


@contextlib.contextmanager
def _patched(module: nn.Module, probe: _Probe) -> Iterator[None]:
    patched = []
    for path, part in module.named_modules():
        stand_in = probe.stand_in(path, part)
        if stand_in is not None:
            patched.append((part, part.__dict__.get("forward")))
            part.forward = stand_in
    try:
        yield
    finally:
        for part, forward in patched:
            del part.__dict__["forward"]
            if forward is not None:
                part.forward = forward


class _Probe:
    """Stand-ins for the layers' forward."""

    def __init__(self, flow: Flow, choose: Choose, generator: torch.Generator) -> None:
        self.flow = flow
        self.choose = choose
        self.generator = generator

    def stand_in(self, path: str, layer: nn.Module) -> Callable[..., Any] | None:
        if isinstance(layer, MIXING):
            return self.mixing(path, layer)
        if isinstance(layer, ChannelSelect):
            return self.select(path, layer)
        return self.channelwise(path, layer) if is_channelwise(layer) else None

    def select(self, path: str, layer: ChannelSelect) -> Callable[..., Any]:
        forward = layer.forward

        def run(x: Tensor) -> Tensor:
            kept = keeps(difference(x).movedim(1, -1))
            if kept is not None:
                self._note(self.flow.inputs, path, kept)
            return forward(x)

        return run

    def mixing(self, path: str, layer: nn.Module) -> Callable[..., Any]:
        forward = layer.forward
        dim = -1 if isinstance(layer, nn.Linear) else 1

        def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.flow.seen.add(path)
            shape = _output_shape(layer, forward, x, args, kwargs)
            if x.shape[0] % 2:
                return self._rand(shape)
            rows = difference(x).movedim(dim, -1)
            kept = keeps(rows)
            if kept is not None:
                self._note(self.flow.inputs, path, kept)
            chosen = self._outputs(path, layer, kept)
            lost = torch.ones(shape[dim], dtype=torch.bool)
            lost[chosen] = False
            y = self._rand((shape[0] // 2, *shape[1:]))
            where = lost.view([-1 if i == dim % len(shape) else 1 for i in range(len(shape))])
            full = rows.all(-1)
            if kept is not None and full.any() and full.dim() == len(shape) - 1:
                # Rows (tokens, positions) that differ as a whole go on doing so: a layer that mixes tokens sees the
                # channels as rows.
                rest = full.unsqueeze(-1).movedim(-1, dim)
                if all(a in (b, 1) for a, b in zip(rest.shape[1:], shape[1:], strict=True)):
                    where = where | rest
            return torch.cat([y, y + where * (0.5 + self._rand(y.shape))])

        return run

    def channelwise(self, path: str, layer: nn.Module) -> Callable[..., Any]:
        forward = layer.forward

        def run(x: Any = None, *args: Any, **kwargs: Any) -> Any:
            if x is None:
                return forward(*args, **kwargs)
            y = forward(x, *args, **kwargs)
            if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.dim() < 2 or x.shape[0] % 2:
                return y
            self.flow.seen.add(path)
            differs = difference(x)
            for name, tensor in [*layer._parameters.items(), *layer._buffers.items()]:
                if tensor is not None and tensor.dim():
                    self._note_tensor(f"{path}.{name}", tensor, differs)
            if y.shape != x.shape:
                return y
            # Norms mix channels by their statistics: let through what differs channel by channel alone.
            clean = self._rand((y.shape[0] // 2, *y.shape[1:]))
            return torch.cat([clean, clean + differs * (0.5 + self._rand(clean.shape))])

        return run

    def _outputs(self, path: str, layer: nn.Module, kept: Tensor | None) -> Tensor:
        """Return the output channels that a layer keeps; a depthwise one keeps those of its kept inputs."""
        if is_depthwise(layer) and kept is not None:
            assert isinstance(layer, nn.modules.conv._ConvNd)
            times = layer.out_channels // layer.in_channels
            chosen = (kept[:, None] * times + torch.arange(times)).flatten()
        else:
            chosen = self.choose(path, layer)
        self._note(self.flow.outputs, path, chosen)
        return chosen

    def _note(self, where: dict[str, Tensor], path: str, kept: Tensor) -> None:
        if path in where and not torch.equal(where[path], kept):
            self.flow.conflicts.add(path)
        where[path] = kept

    def _note_tensor(self, name: str, tensor: Tensor, differs: Tensor) -> None:
        dims = self.flow.tensors.setdefault(name, {})
        for dim, size in enumerate(tensor.shape):
            if size == 1:
                continue
            # Aligned from the right as in broadcasting, or a norm's, along dimension 1.
            at = differs.dim() - tensor.dim() + dim
            places = [place for place in (at, 1) if 0 < place < differs.dim() and differs.shape[place] == size]
            found = [keeps(differs.movedim(place, -1)) for place in places]
            known = [kept for kept in found if kept is not None]
            if known:
                kept = next((kept for kept in known if 0 < len(kept) < size), known[0])
                if dim in dims and not torch.equal(dims[dim], kept):
                    self.flow.conflicts.add(name)
                dims[dim] = kept

    def _rand(self, shape: Any) -> Tensor:
        # Positive, so that no activation stops a difference.
        return torch.rand(tuple(shape), generator=self.generator) * 0.5 + 0.5


def difference(x: Tensor) -> Tensor:
    """Return where the two halves of a batch [2b, ...] differ, [b, ...]."""
    first, second = x.chunk(2)
    if not x.is_floating_point():
        return first != second
    return (first - second).abs() > 1e-5 * (first.abs() + second.abs()) + 1e-7


def keeps(rows: Tensor) -> Tensor | None:
    """Return the channels of rows [..., channels] that do not differ.

    Rows that differ as a whole say nothing (a layer that mixes tokens sees the lost channels as rows), nor do rows that
    do not differ at all where others do (a class token). None where all differ as a whole or not in the same channels:
    something in between (attention, say) mixed the channels.
    """
    rows = rows.flatten(0, -2)
    partly = rows[~rows.all(-1)]
    if not len(partly):
        return None
    telling = partly[partly.any(-1)]
    if not len(telling):
        return torch.arange(rows.shape[-1])
    share = telling.float().mean(0)
    # A share in between is the mark of chance: a mean that happens to come out the same.
    if ((share > 0.1) & (share < 0.9)).any():
        return None
    return (share < 0.5).nonzero().flatten()


def _output_shape(layer: nn.Module, forward: Callable[..., Any], x: Tensor, args: Any, kwargs: Any) -> tuple[int, ...]:
    """Return the shape of a mixing layer's output for the input, without computing it where that is easy."""
    if isinstance(layer, nn.Linear):
        return (*x.shape[:-1], layer.out_features)
    if type(layer) is nn.Conv2d and not isinstance(layer.padding, str) and x.dim() == 4:
        sides = [
            (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for side, pad, dilation, kernel, stride in zip(
                x.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
            )
        ]
        return (x.shape[0], layer.out_channels, *sides)
    y = forward(x[:1], *args, **kwargs)
    return (x.shape[0], *y.shape[1:])
