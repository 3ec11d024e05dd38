"""Which channels every layer would lose when the layers before it lose some of theirs: found by running the network.

No graph is traced. One forward pass carries a pair of images in one batch, which differ nowhere but in the channels
that are to be removed: every convolution and linear layer answers the same random numbers for both, plus a
difference in the output channels that it is to lose. Whatever lies between (activations, pools, additions,
concatenations, shuffles, flattening, reshaping) moves the difference along by itself, so each layer's input shows
which of its channels come from removed ones. The stem's input shows no difference at all and is kept.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.structure.channels import difference, keeps, kept_rows, noise, output_shape, restricted, signature
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
    single: set[str] = field(default_factory=set)
    """Mixing layers that are given one row of channels for each image, such as a class token."""
    answers: dict[tuple[str, int], Answer] = field(default_factory=dict)
    """What each layer was given and answered, by its path and the number of the call."""
    calls: Counter[str] = field(default_factory=Counter)
    conflicts: set[str] = field(default_factory=set)
    """Layers that run more than once and would have to keep different channels."""

    def count(self, path: str) -> int:
        """Return how many times a layer was called before, and count one more."""
        self.calls[path] += 1
        return self.calls[path] - 1


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


def trace(module: nn.Module, shape: tuple[int, int, int], choose: Choose) -> Flow:
    """Return the channels that the layers of ``module`` keep when each mixing layer keeps those that ``choose`` says.

    The module is in eval mode and comes back as it was. ``shape`` is channels, height, width of an image.

    Raises:
        RuntimeError: or whatever else the network's own forward raises.
    """
    flow = Flow()
    image = noise("", 0, (1, *shape))
    with torch.no_grad(), positive(module), patched(module, _Probe(flow, choose).stand_in):
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
def positive(module: nn.Module) -> Iterator[None]:
    """Set all tensors outside of the mixing layers such that a difference passes (zeroed gains let none through)."""
    saved: list[tuple[Tensor, Tensor]] = []
    for part in module.modules():
        if isinstance(part, MIXING):
            continue
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            persistent = name not in part._non_persistent_buffers_set
            if tensor is None or not tensor.is_floating_point() or not persistent:
                continue
            saved.append((tensor, tensor.detach().clone()))
            tensor.fill_(0 if name == "running_mean" else 1)
    try:
        yield
    finally:
        for tensor, value in saved:
            tensor.copy_(value)


@contextlib.contextmanager
def patched(module: nn.Module, stand_in: Callable[[str, nn.Module], Callable[..., Any] | None]) -> Iterator[None]:
    """Put stand-ins in the place of the layers' forward, where there are any."""
    replaced = []
    for path, part in module.named_modules():
        forward = stand_in(path, part)
        if forward is not None:
            replaced.append((part, part.__dict__.get("forward")))
            part.forward = forward
    try:
        yield
    finally:
        for part, forward in replaced:
            del part.__dict__["forward"]
            if forward is not None:
                part.forward = forward


class _Probe:
    """Stand-ins for the layers' forward that note what comes in."""

    def __init__(self, flow: Flow, choose: Choose) -> None:
        self.flow = flow
        self.choose = choose

    def stand_in(self, path: str, layer: nn.Module) -> Callable[..., Any] | None:
        if isinstance(layer, MIXING):
            return self.mixing(path, layer)
        if isinstance(layer, ChannelSelect):
            return self.select(path, layer)
        return self.channelwise(path, layer) if is_channelwise(layer) else None

    def select(self, path: str, layer: ChannelSelect) -> Callable[..., Any]:
        forward = layer.forward

        def run(x: Tensor) -> Tensor:
            kept = keeps(difference(x, 1))
            if kept is not None:
                self._note(self.flow.inputs, path, kept)
            return forward(x)

        return run

    def mixing(self, path: str, layer: nn.Module) -> Callable[..., Any]:
        forward = layer.forward
        dim = -1 if isinstance(layer, nn.Linear) else 1

        def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            call = self.flow.count(path)
            shape = output_shape(layer, forward, x, args, kwargs)
            paired = x.shape[0] % 2 == 0
            rows = difference(x, dim) if paired else x.isnan().movedim(dim, -1)
            kept = keeps(rows)
            if kept is not None:
                self._note(self.flow.inputs, path, kept)
                if rows[0].numel() == rows.shape[-1]:
                    self.flow.single.add(path)
            chosen = self._outputs(path, layer, kept)
            whole = kept_rows(rows, dim) if kept is not None else {}
            means = signature(restricted(x, whole), dim)
            self.flow.answers[path, call] = Answer(shape, dim, chosen, kept, means, whole, paired)
            lost = torch.ones(shape[dim], dtype=torch.bool)
            lost[chosen] = False
            y = noise(path, call, (shape[0] // 2 if paired else shape[0], *shape[1:]))
            where = lost.view([-1 if i == dim % len(shape) else 1 for i in range(len(shape))])
            if not paired:
                # Not a batch of images but a table of positions, say: there are no two to differ.
                return torch.where(where, torch.nan, y)
            full = rows.all(-1)
            if kept is not None and full.any() and full.dim() == len(shape) - 1:
                # Rows (tokens, positions) that differ as a whole go on doing so: a layer that mixes tokens sees the
                # channels as rows.
                rest = full.unsqueeze(-1).movedim(-1, dim)
                if all(a in (b, 1) for a, b in zip(rest.shape[1:], shape[1:], strict=True)):
                    where = where | rest
            return torch.cat([y, y + where * noise(path, call, y.shape, 1)])

        return run

    def channelwise(self, path: str, layer: nn.Module) -> Callable[..., Any]:
        forward = layer.forward

        def run(x: Any = None, *args: Any, **kwargs: Any) -> Any:
            y = forward(*(() if x is None else (x,)), *args, **kwargs)
            if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.dim() < 2 or x.shape[0] % 2:
                return y
            call = self.flow.count(path)
            places = {}
            for name, tensor in [*layer._parameters.items(), *layer._buffers.items()]:
                if tensor is not None and tensor.dim():
                    places.update(self._note_tensor(f"{path}.{name}", tensor, x))
            if y.shape != x.shape or not places:
                return y
            dim, kept = next(iter(places.items()))
            self.flow.answers[path, call] = Answer(tuple(y.shape), dim, kept, kept, signature(x, dim))
            # Norms mix channels by their statistics: let through what differs channel by channel alone.
            clean = noise(path, call, (y.shape[0] // 2, *y.shape[1:]))
            return torch.cat([clean, clean + difference(x) * noise(path, call, clean.shape, 1)])

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

    def _note_tensor(self, name: str, tensor: Tensor, x: Tensor) -> dict[int, Tensor]:
        """Note which indices of a tensor go; return by dimension of ``x`` which channels stay."""
        dims = self.flow.tensors.get(name, {})
        places = {}
        for dim, size in enumerate(tensor.shape):
            if size == 1:
                continue
            # Aligned from the right as in broadcasting, or a norm's, along dimension 1.
            at = x.dim() - tensor.dim() + dim
            found = {
                place: keeps(difference(x, place))
                for place in (at, 1)
                if 0 < place < x.dim() and x.shape[place] == size
            }
            known = [(place, kept) for place, kept in found.items() if kept is not None]
            if known:
                place, kept = next((pair for pair in known if len(pair[1]) < size), known[0])
                if dim in dims and not torch.equal(dims[dim], kept):
                    self.flow.conflicts.add(name)
                dims[dim] = places[place] = kept
        if dims:
            self.flow.tensors[name] = dims
        return places
