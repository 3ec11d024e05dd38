"""The maps before the activation that a layer ends with, such as those before the last ReLU of a stage.

The activation may be a module, one that a block calls several times, or a function, and it may overwrite its input. So
it is found by watching torch's own functions while the layer runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdtool.features.taps import Tap
from kdtool.models.architecture import Network
from kdtool.models.hooks import evaluating

ACTIVATIONS = frozenset(
    (
        "relu",
        "relu6",
        "leaky_relu",
        "rrelu",
        "prelu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "threshold",
        "sigmoid",
        "tanh",
    )
)
"""The names of torch's functions that work on each number alone; those with a ``_`` more overwrite their input."""


@dataclass(frozen=True)
class Activated:
    """An activation that ran: its output, the version of the output then, and its input."""

    output: Tensor
    version: int
    input: Tensor

    def is_output(self, output: Any) -> bool:
        """Return whether a tensor is the output of the activation, and was not changed since."""
        return output is self.output and output._version == self.version


class Activations(TorchFunctionMode):
    """Note every activation that runs on a map or on tokens while the block runs.

    ``note`` is called with the activation. An input that the activation overwrites is copied before.
    """

    def __init__(self, note: Callable[[Activated], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func`` and note it if it is an activation."""
        options = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        before = args[0] if args else options.get("input")
        if name.removesuffix("_") not in ACTIVATIONS or not isinstance(before, Tensor) or before.dim() not in (3, 4):
            return func(*args, **options)
        overwrites = name.endswith("_") or options.get("inplace") or any(value is True for value in args[1:])
        kept = before.clone() if overwrites else before
        output = func(*args, **options)
        if isinstance(output, Tensor) and output.shape == kept.shape:
            self.note(Activated(output, output._version, kept))
        return output


class Watched:
    """The forward of a layer that ends in an activation, with the input of that activation on the side."""

    def __init__(self, forward: Callable[..., Any], keep: Callable[[Tensor], None]) -> None:
        """Wrap ``forward``; ``keep`` is called with the input of the activation."""
        self.forward, self.keep = forward, keep

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer."""
        seen: list[Activated] = []
        with Activations(seen.append):
            output = self.forward(*args, **kwargs)
        exact = [activated.input for activated in seen if activated.is_output(output)]
        # In train mode a dropout may follow the activation.
        alike = [activated.input for activated in seen if activated.input.shape == output.shape]
        self.keep((exact or alike or [output])[-1])
        return output


def before_activation(network: Network, tap: Tap) -> Tap:
    """Return the tap of the map before the activation that a layer ends with, or the same tap if it ends with none.

    A ResNet's stage ends with the ReLU of its last block; that of a network whose blocks activate first, or of a
    transformer, ends with a sum. The new tap has the shape of the old one. Its path is that of the innermost layer
    around the activation which runs once.
    """
    running: list[str] = []
    calls: dict[str, int] = {}
    outputs: dict[str, tuple[Any, bool]] = {}
    seen: list[tuple[Activated, tuple[str, ...]]] = []
    handles = []

    def enter(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            calls[path] = calls.get(path, 0) + 1
            running.append(path)

        return hook

    def leave(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            running.pop()
            outputs[path] = (output, any(activated.is_output(output) for activated, _ in seen))

        return hook

    for path, part in network.module.named_modules():
        handles += [part.register_forward_pre_hook(enter(path)), part.register_forward_hook(leave(path))]
    try:
        with torch.no_grad(), evaluating(network.module):
            first = next(network.module.parameters(), torch.zeros(0))
            images = torch.zeros(1, *network.architecture.input, device=first.device)
            with Activations(lambda activated: seen.append((activated, tuple(running)))):
                network.module(images)
    finally:
        for handle in handles:
            handle.remove()
    output, ends_in_activation = outputs.get(tap.path, (None, False))
    if not ends_in_activation:
        return tap
    around = next(paths for activated, paths in reversed(seen) if activated.output is output)
    inside = around[around.index(tap.path) :] if tap.path in around else ()
    once = [path for path in inside if calls[path] == 1 and outputs[path][0] is output]
    return dataclasses.replace(tap, path=once[-1], copied=False, before=True) if once else tap
