"""Run a network once, and note what each of its blocks is given and returns, and how far the one follows the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.models.hooks import evaluating, patched
from kdtool.models.layers import CONV_LINEAR
from kdtool.surgery.tracing.differences import output_shape

_SCALE = 0.1
"""What scales are set to. At 1, `x + scale * (pool(x) - x)` is a pool and no longer looks residual."""


@dataclass
class Observation:
    """What was seen of one block: the shapes it was given and returned (lists of them where there are several)."""

    inputs: Any
    output: Any
    correlation: float = 0.0
    """How far the output follows the input when convolutions and linear layers return zero."""
    calls: int = 1
    grows: bool = False
    """Whether the output is the input, or follows it, with more channels behind it."""


def observe(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, Observation]:
    """Run one image and return what was seen of all modules that hold others, in the order they began.

    The module is in eval mode, on the CPU, in float32; its weights are lost. Norms at their usual gain make a branch
    of zeros return zero, unless it pools what it is given; norms with a gain of zero silence that too, but also a norm
    behind the sum. The correlation is the larger of the two.

    Raises:
        RuntimeError: or whatever else the network's own forward raises.
    """
    seen = _observe(module, shape, 1.0)
    for path, again in _observe(module, shape, 0.0).items():
        seen[path].correlation = max(seen[path].correlation, again.correlation)
    return seen


def output_shapes(module: nn.Module, shape: tuple[int, int, int], paths: Iterable[str]) -> dict[str, list[int]]:
    """Return the shape of what modules return for one image, without the batch; one that is not called is left out."""
    found: dict[str, list[int]] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(part: nn.Module, given: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                found[path] = list(first.shape[1:])

        return hook

    first = next(module.parameters(), torch.zeros(0))
    with contextlib.ExitStack() as stack, torch.no_grad(), evaluating(module):
        for path in paths:
            stack.callback(module.get_submodule(path).register_forward_hook(note(path)).remove)
        module(torch.zeros(1, *shape).to(first))
    return found


def sizes(value: Any) -> list[tuple[int, ...]]:
    """Return the shapes of the tensors in an observation."""
    values = value if isinstance(value, list) else [value]
    return [tuple(one.shape) for one in values if isinstance(one, Tensor)]


def _observe(module: nn.Module, shape: tuple[int, int, int], gain: float) -> dict[str, Observation]:
    watch = _Watch()
    with torch.no_grad():
        _silence(module, gain)
        with patched(module, watch.stand_in):
            module(torch.rand(1, *shape, generator=watch.generator))
    return watch.seen


def _silence(module: nn.Module, gain: float) -> None:
    """Make convolutions and linear layers return zero, and give norms this gain; scales stay alive."""
    for part in module.modules():
        mixing = isinstance(part, CONV_LINEAR)
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is None or not tensor.is_floating_point() or name in part._non_persistent_buffers_set:
                continue
            silent = mixing or name in ("bias", "running_mean")
            tensor.fill_(0 if silent else gain if name == "weight" else _SCALE)


class _Watch:
    """Stand-ins for the forward of modules: layers that mix return zeros at once, those that hold others are noted."""

    def __init__(self) -> None:
        self.seen: dict[str, Observation] = {}
        self.generator = torch.Generator().manual_seed(0)
        self.aside = False

    def stand_in(self, path: str, part: nn.Module) -> Callable[..., Any] | None:
        if isinstance(part, CONV_LINEAR):
            return _zeros(part)
        return self._noting(path, part) if path and next(part.children(), None) is not None else None

    def _noting(self, path: str, part: nn.Module) -> Callable[..., Any]:
        forward = part.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.aside:
                return forward(*args, **kwargs)
            if path in self.seen:
                self.seen[path].calls += 1
                return forward(*args, **kwargs)
            given = args or tuple(kwargs.values())[:1]
            # In its place now: the order is that in which blocks begin.
            self.seen[path] = seen = Observation(_shape_only(given[0]) if given else None, None)
            y = forward(*args, **kwargs)
            seen.output = _shape_only(y)
            outputs = y if isinstance(y, tuple) else (y,)
            inputs = sizes(_shape_only(given[: len(outputs)]))
            if inputs and inputs == sizes(_shape_only(outputs))[: len(inputs)]:
                seen.correlation = self._correlation(forward, args, kwargs, len(outputs))
            elif isinstance(y, Tensor) and len(inputs) == 1 and _is_wider(inputs[0], tuple(y.shape)):
                seen.grows = self._correlation(forward, args, kwargs, 1) > 0.5
            return y

        return run

    def _correlation(self, forward: Callable[..., Any], args: Any, kwargs: Any, count: int) -> float:
        """Return how far the outputs follow noise in place of the first ``count`` inputs."""
        names = list(kwargs)[: 0 if args else 1]
        given = [*args[:count], *(kwargs[name] for name in names)]
        drawn = [self._noise(one) for one in given]
        self.aside = True
        try:
            y = forward(*(drawn if args else ()), *args[count:], **{**kwargs, **dict(zip(names, drawn, strict=False))})
        finally:
            self.aside = False
        outputs = [one for one in (y if isinstance(y, tuple) else (y,)) if isinstance(one, Tensor)]
        inputs = [one for one in drawn if isinstance(one, Tensor)]
        return min(_correlation(x, one[:, : x.shape[1]]) for x, one in zip(inputs, outputs, strict=False))

    def _noise(self, value: Any) -> Any:
        return torch.randn(value.shape, generator=self.generator) if isinstance(value, Tensor) else value


def _zeros(layer: nn.Module) -> Callable[..., Any]:
    forward = layer.forward

    def run(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros(output_shape(layer, forward, x, args, kwargs), dtype=x.dtype)

    return run


def _is_wider(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether feature maps of the same size have more channels."""
    return len(before) == len(after) == 4 and before[2:] == after[2:] and before[1] < after[1]


def _shape_only(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return [_shape_only(one) for one in value] if isinstance(value, list | tuple) else None


def _correlation(x: Tensor, y: Tensor) -> float:
    pair = torch.stack([x.flatten(), y.flatten()])
    value = float(torch.corrcoef(pair)[0, 1])
    return value if value == value else 0.0  # constant output: no correlation
