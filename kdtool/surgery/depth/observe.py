"""Run a network and record what each of its blocks receives and returns, and how far the output follows the input.

This tells residual blocks from others without the names of their classes: when the layers of the branch return zero, a
residual block still returns its input.
"""

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
"""The value of scale parameters. At 1, `x + scale * (pool(x) - x)` would be a pool and not look residual."""


@dataclass
class Observation:
    """What one block received and returned: meta tensors, or a list of them if there are several values."""

    inputs: Any
    output: Any
    correlation: float = 0.0
    """The correlation of output and input when convolutions and linear layers return zero."""
    calls: int = 1
    """How often the network called the block."""
    grows: bool = False
    """Whether the output is the input, or follows it, with more channels concatenated to it."""


def observe(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, Observation]:
    """Run one image and return the observations of all modules that have children, in the order of their calls.

    The module has to be in eval mode, on the CPU, in float32; its weights are overwritten. ``shape`` is
    [channels, height, width]. The network runs twice. With norms of gain 1, a branch of zeros returns zero, unless it
    pools its input. With norms of gain 0 that branch returns zero too, but so does a norm behind the sum. The
    correlation is the larger one of the two runs.

    Raises:
        RuntimeError: or any other exception that the network's own forward raises.
    """
    observations = _observe(module, shape, 1.0)
    for path, second in _observe(module, shape, 0.0).items():
        observations[path].correlation = max(observations[path].correlation, second.correlation)
    return observations


def output_shapes(module: nn.Module, shape: tuple[int, int, int], paths: Iterable[str]) -> dict[str, list[int]]:
    """Return the output shapes of modules for one image, without the batch; modules that are not called are left out.

    ``shape`` is that of the image, [channels, height, width].
    """
    shapes: dict[str, list[int]] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(part: nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                shapes[path] = list(first.shape[1:])

        return hook

    reference = next(module.parameters(), torch.zeros(0))
    with contextlib.ExitStack() as stack, torch.no_grad(), evaluating(module):
        for path in paths:
            stack.callback(module.get_submodule(path).register_forward_hook(note(path)).remove)
        module(torch.zeros(1, *shape).to(reference))
    return shapes


def sizes(value: Any) -> list[tuple[int, ...]]:
    """Return the shapes of the tensors in an observation's ``inputs`` or ``output``."""
    values = value if isinstance(value, list) else [value]
    return [tuple(tensor.shape) for tensor in values if isinstance(tensor, Tensor)]


def _observe(module: nn.Module, shape: tuple[int, int, int], gain: float) -> dict[str, Observation]:
    """Run the network once with norms of this gain and return the observations of its blocks."""
    observer = _Observer()
    with torch.no_grad():
        _zero_branches(module, gain)
        with patched(module, observer.stand_in):
            module(torch.rand(1, *shape, generator=observer.generator))
    return observer.observations


def _zero_branches(module: nn.Module, gain: float) -> None:
    """Set the weights of convolutions and linear layers to zero, the gain of norms to ``gain``, scales to `_SCALE`."""
    for part in module.modules():
        mixes = isinstance(part, CONV_LINEAR)
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is None or not tensor.is_floating_point() or name in part._non_persistent_buffers_set:
                continue
            zero = mixes or name in ("bias", "running_mean")
            tensor.fill_(0 if zero else gain if name == "weight" else _SCALE)


class _Observer:
    """Replaces the forward of modules: convolutions and linear layers return zeros, modules with children are recorded.

    While ``paused``, a block runs a second time on noise, and nothing is recorded.
    """

    def __init__(self) -> None:
        self.observations: dict[str, Observation] = {}
        self.generator = torch.Generator().manual_seed(0)
        self.paused = False

    def stand_in(self, path: str, part: nn.Module) -> Callable[..., Any] | None:
        if isinstance(part, CONV_LINEAR):
            return _zeros(part)
        return self._recorded(path, part) if path and next(part.children(), None) is not None else None

    def _recorded(self, path: str, part: nn.Module) -> Callable[..., Any]:
        """Return a forward that does what the module's own does and records the call."""
        forward = part.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.paused:
                return forward(*args, **kwargs)
            if path in self.observations:
                self.observations[path].calls += 1
                return forward(*args, **kwargs)
            values = args or tuple(kwargs.values())[:1]
            # Before the forward of the block: the observations are in the order in which the blocks are called.
            self.observations[path] = observation = Observation(_shape_only(values[0]) if values else None, None)
            y = forward(*args, **kwargs)
            observation.output = _shape_only(y)
            outputs = y if isinstance(y, tuple) else (y,)
            inputs = sizes(_shape_only(values[: len(outputs)]))
            if inputs and inputs == sizes(_shape_only(outputs))[: len(inputs)]:
                observation.correlation = self._correlation(forward, args, kwargs, len(outputs))
            elif isinstance(y, Tensor) and len(inputs) == 1 and _is_wider(inputs[0], tuple(y.shape)):
                observation.grows = self._correlation(forward, args, kwargs, 1) > 0.5
            return y

        return run

    def _correlation(self, forward: Callable[..., Any], args: Any, kwargs: Any, count: int) -> float:
        """Return how far the outputs follow noise that replaces the first ``count`` inputs."""
        names = list(kwargs)[: 0 if args else 1]
        values = [*args[:count], *(kwargs[name] for name in names)]
        drawn = [self._noise(value) for value in values]
        self.paused = True
        try:
            y = forward(*(drawn if args else ()), *args[count:], **{**kwargs, **dict(zip(names, drawn, strict=False))})
        finally:
            self.paused = False
        outputs = [value for value in (y if isinstance(y, tuple) else (y,)) if isinstance(value, Tensor)]
        inputs = [value for value in drawn if isinstance(value, Tensor)]
        # A block that grows concatenates channels behind those of its input; only the first ones are compared.
        return min(_correlation(x, output[:, : x.shape[1]]) for x, output in zip(inputs, outputs, strict=False))

    def _noise(self, value: Any) -> Any:
        return torch.randn(value.shape, generator=self.generator) if isinstance(value, Tensor) else value


def _zeros(layer: nn.Module) -> Callable[..., Any]:
    """Return a forward that returns zeros of the shape of the layer's output."""
    forward = layer.forward

    def run(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros(output_shape(layer, forward, x, args, kwargs), dtype=x.dtype)

    return run


def _is_wider(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Return whether feature maps of the same height and width have more channels after than before."""
    return len(before) == len(after) == 4 and before[2:] == after[2:] and before[1] < after[1]


def _shape_only(value: Any) -> Any:
    """Return tensors without their data, as meta tensors; tuples as lists, and None for all other values."""
    if isinstance(value, Tensor):
        return value.to("meta")
    return [_shape_only(item) for item in value] if isinstance(value, list | tuple) else None


def _correlation(x: Tensor, y: Tensor) -> float:
    """Return the correlation coefficient of the numbers of two tensors, 0 if one of them is constant."""
    pair = torch.stack([x.flatten(), y.flatten()])
    value = float(torch.corrcoef(pair)[0, 1])
    return value if value == value else 0.0  # NaN if a tensor is constant
