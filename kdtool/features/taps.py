"""Layers whose output can be watched: the ends of a network's stages, from the stem to the last map before the head.

They are found by running the network on one image and recording the shape of every layer's output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import Error, UsageError, nearest
from kdtool.models.architecture import Network
from kdtool.models.hooks import evaluating, hooked
from kdtool.models.modules import check_transparent

# The most tokens (class, distillation, registers) that vision transformers put before those of the image.
MAX_PREFIX = 5


@dataclass(frozen=True)
class Tap:
    """A layer whose output is watched.

    ``shape`` is the shape of the output for one image: [channels, height, width] if ``layout`` is ``nchw``, [height,
    width, channels] if it is ``nhwc``, [tokens, channels] if it is ``tokens``. ``copied`` is set if a later layer
    overwrites the output in place, so that it must be copied when it is recorded. With ``before`` it is the input of
    the activation at the end of the layer that is watched, see `before_activation`.
    """

    path: str
    shape: tuple[int, ...]
    layout: str
    copied: bool = False
    before: bool = False

    @property
    def name(self) -> str:
        """The path, which other taps of the layer have too, marked if the tap is the one before its activation."""
        return f"{self.path}-before" if self.before else self.path

    @property
    def channels(self) -> int:
        """The number of channels of the output."""
        return self.shape[0] if self.layout == "nchw" else self.shape[-1]

    @property
    def resolution(self) -> tuple[int, ...]:
        """Height and width of the output, or its number of tokens."""
        return self.shape[1:] if self.layout == "nchw" else self.shape[:-1]

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the output as a map, see `as_maps`."""
        if self.layout != "tokens":
            height, width = self.resolution
            return height, width
        (count,) = self.resolution
        side = math.isqrt(count)
        # Up to MAX_PREFIX tokens more than a square number are class tokens; any other number becomes a column.
        return (side, side) if count - side * side <= MAX_PREFIX else (count, 1)


@dataclass(frozen=True)
class Unit:
    """A module of the trunk, which runs once per image.

    ``shallow`` marks a leaf layer, or a container of leaf layers only; ``parameters`` whether it has any; ``pool`` a
    pool without parameters, or the identity in its place.
    """

    tap: Tap
    shallow: bool
    parameters: bool
    pool: bool


def stage_taps(network: Network, *, stem: bool = True) -> list[Tap]:
    """Return the end of each stage of a network, in the order in which they run; ``stem`` includes that of the stem.

    The modules of the trunk are grouped into stages: a new stage begins where the resolution changes, and at the first
    block after the layers of the stem. The tap of a stage is its last layer that is no pool. For a ResNet these are
    the stem's activation and the outputs of layer1 to layer4, the maps of Kulkarni et al. (2021).

    Raises:
        Error: no layer of the network outputs a map or tokens.
    """
    check_transparent(network.module, "the method reads its layers")
    stages: list[list[Unit]] = []
    for unit in units(network):
        if stages and unit.tap.resolution == stages[-1][-1].tap.resolution and not _ends_stem(stages, unit):
            stages[-1].append(unit)
        else:
            stages.append([unit])
    stages = [stage for stage in stages if _learns(stage)]
    begins_with_stem = len(stages) > 1 and _plain(stages[0]) and not all(_plain(stage) for stage in stages)
    taps = [next(unit for unit in reversed(stage) if not unit.pool).tap for stage in stages]
    if len(taps) > 1 and taps[-1].channels == network.architecture.classes and not _is_read(network, taps[-1]):
        taps.pop()  # a classifier that is a convolution
    if not taps:
        raise Error(
            f"{network.architecture.spec}: has no stages (none of its layers outputs a map), so there are no maps to "
            "compare; use a method that compares logits"
        )
    return taps[1:] if begins_with_stem and not stem and len(taps) > 1 else taps


def _ends_stem(stages: Sequence[Sequence[Unit]], unit: Unit) -> bool:
    """Return whether a unit is the first block, and the layers of the stem before it have its resolution."""
    only_stem = all(_plain(stage) for stage in stages)
    return not unit.shallow and only_stem and any(layer.parameters for layer in stages[-1])


def _plain(stage: Sequence[Unit]) -> bool:
    return all(unit.shallow for unit in stage)


def _learns(stage: Sequence[Unit]) -> bool:
    return any(unit.parameters and not unit.pool for unit in stage)


def _is_read(network: Network, tap: Tap) -> bool:
    """Return whether layers with parameters run behind a tap, such as the classifier behind the last stage."""
    ended: list[str] = []

    def note(path: str) -> Callable[..., None]:
        return lambda *_: ended.append(path)

    _run(network.module, network.architecture.input, note)
    # What encloses the tap ends behind it too, but its parameters may all be in front of the tap.
    behind = [path for path in ended[ended.index(tap.path) + 1 :] if not tap.path.startswith(f"{path}.")]
    return any(next(network.module.get_submodule(path).parameters(), None) is not None for path in behind)


def tap(network: Network, path: str) -> Tap:
    """Return the layer at ``path`` as a tap.

    Raises:
        UsageError: there is no such layer, its output is no map, or it runs more than once.
    """
    names = [name for name, _ in network.module.named_modules() if name]
    if path not in names:
        raise UsageError(f"{network.architecture.spec}: has no layer {path!r}{nearest(path, names)}")
    taps = _observe(network.module, network.architecture.input)
    if path not in taps:
        raise UsageError(
            f"{network.architecture.spec}: the output of {path!r} is no map of channels, or the layer does not run "
            "exactly once; name another layer"
        )
    return taps[path]


def units(network: Network) -> list[Unit]:
    """Return the modules of the trunk in the order in which they run.

    These are the network's children; a container (Sequential and the like) in which the resolution changes is replaced
    by its own children.
    """
    seen = _observe(network.module, network.architecture.input)
    order = {path: index for index, path in enumerate(seen)}
    trunk: list[Unit] = []

    def expand(path: str, module: nn.Module) -> None:
        for name, child in module.named_children():
            full = f"{path}.{name}".removeprefix(".")
            inner = [seen[below].resolution for below, _ in _children(full, child) if below in seen]
            uncalled = full not in seen and isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential)
            if uncalled or (full in seen and isinstance(child, nn.Sequential) and len(set(inner)) > 1):
                expand(full, child)
            elif full in seen:
                trunk.append(_unit(seen[full], child))

    expand("", network.module)
    return sorted(trunk, key=lambda unit: order[unit.tap.path])


def _children(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{path}.{name}", child) for name, child in module.named_children()]


def _unit(tap: Tap, module: nn.Module) -> Unit:
    parameters = next(module.parameters(), None) is not None
    return Unit(
        tap,
        shallow=all(next(child.children(), None) is None for child in module.children()),
        parameters=parameters,
        # An identity often stands in the place of a pool.
        pool=("pool" in type(module).__name__.lower() or isinstance(module, nn.Identity)) and not parameters,
    )


def _observe(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, Tap]:
    """Return every layer that runs exactly once and outputs a map or tokens, by path, in the order they end."""
    outputs: dict[str, tuple[Tensor, int]] = {}
    calls: dict[str, int] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            calls[path] = calls.get(path, 0) + 1
            if isinstance(output, Tensor) and output.dim() in (3, 4) and output.is_floating_point():
                outputs[path] = (output, output._version)

        return hook

    _run(module, shape, note)
    return {
        path: Tap(path, tuple(output.shape[1:]), _layout(tuple(output.shape[1:])), copied=output._version != version)
        for path, (output, version) in outputs.items()
        if calls[path] == 1 and output.shape[0] == 1
    }


def _run(module: nn.Module, shape: tuple[int, int, int], note: Callable[[str], Callable[..., None]]) -> None:
    """Run a network on an image of zeros, with ``note(path)`` as a hook of every layer."""
    first = next(module.parameters(), torch.zeros(0))
    with hooked(module, note), evaluating(module), torch.no_grad():
        module(torch.zeros(1, *shape, device=first.device))


def _layout(shape: tuple[int, ...]) -> str:
    """Return the layout of an output: square images give square maps, so that equal sizes are height and width."""
    if len(shape) == 2:
        return "tokens"
    return "nhwc" if shape[0] == shape[1] != shape[2] else "nchw"
