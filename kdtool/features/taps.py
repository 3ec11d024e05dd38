"""Where a network can be watched: the ends of its stages, from the stem to the last map before the head."""

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

# Vision transformers put up to so many tokens (class, distillation, registers) before those of the image.
MAX_PREFIX = 5


@dataclass(frozen=True)
class Tap:
    """A layer whose output is watched.

    ``shape`` is that of its output for one image: [channels, height, width], [height, width, channels] where ``layout``
    is ``nhwc``, [tokens, channels] where it is ``tokens``. ``copied`` says that something later in the network
    overwrites the output in place, so that whoever watches it has to copy it.
    """

    path: str
    shape: tuple[int, ...]
    layout: str
    copied: bool = False

    @property
    def channels(self) -> int:
        """How many channels the output has."""
        return self.shape[0] if self.layout == "nchw" else self.shape[-1]

    @property
    def resolution(self) -> tuple[int, ...]:
        """Height and width of the output, or how many tokens it has."""
        return self.shape[1:] if self.layout == "nchw" else self.shape[:-1]

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the output as a map."""
        if self.layout != "tokens":
            height, width = self.resolution
            return height, width
        (count,) = self.resolution
        side = math.isqrt(count)
        # A few tokens more than a square are class tokens; otherwise there is no square, but a column.
        return (side, side) if count - side * side <= MAX_PREFIX else (count, 1)


@dataclass(frozen=True)
class Unit:
    """A module of the trunk, that runs once for an image: leaf layers are ``shallow``, and rows of nothing else."""

    tap: Tap
    shallow: bool
    parameters: bool
    pool: bool


def stage_taps(network: Network, *, stem: bool = True) -> list[Tap]:
    """Return the end of each stage of a network, in the order they run; ``stem`` says whether that of the stem counts.

    The modules of the trunk are grouped: a new stage begins where the resolution changes, and where the first
    block follows the layers of the stem. The tap of a stage is its last layer that is no pool. For a ResNet these are
    the stem's activation and the outputs of layer1 to layer4, the maps of Kulkarni et al. (2021).

    Raises:
        Error: the network makes no maps and no tokens.
    """
    stages: list[list[Unit]] = []
    for unit in units(network):
        if stages and unit.tap.resolution == stages[-1][-1].tap.resolution and not _ends_stem(stages, unit):
            stages[-1].append(unit)
        else:
            stages.append([unit])
    stages = [stage for stage in stages if _learns(stage)]
    begins_with_stem = len(stages) > 1 and _plain(stages[0]) and not all(_plain(stage) for stage in stages)
    taps = [next(unit for unit in reversed(stage) if not unit.pool).tap for stage in stages]
    if len(taps) > 1 and taps[-1].channels == network.architecture.classes:
        taps.pop()  # a classifier that is a convolution
    if not taps:
        raise Error(
            f"{network.architecture.spec}: has no stages (none of its layers makes a map), so there is nowhere to "
            "look; use a method that compares logits"
        )
    return taps[1:] if begins_with_stem and not stem and len(taps) > 1 else taps


def _ends_stem(stages: Sequence[Sequence[Unit]], unit: Unit) -> bool:
    """Whether a unit is the first block, and what stands before it at its resolution the layers of the stem."""
    before = all(_plain(stage) for stage in stages)
    return not unit.shallow and before and any(one.parameters for one in stages[-1])


def _plain(stage: Sequence[Unit]) -> bool:
    return all(unit.shallow for unit in stage)


def _learns(stage: Sequence[Unit]) -> bool:
    return any(unit.parameters and not unit.pool for unit in stage)


def tap(network: Network, path: str) -> Tap:
    """Return the layer at ``path`` as a tap.

    Raises:
        UsageError: there is no such layer, or its output is no map.
    """
    names = [name for name, _ in network.module.named_modules() if name]
    if path not in names:
        raise UsageError(f"{network.architecture.spec}: has no layer {path!r}{nearest(path, names)}")
    found = _observe(network.module, network.architecture.input)
    if path not in found:
        raise UsageError(f"{network.architecture.spec}: the output of {path!r} is no map of channels, or it runs twice")
    return found[path]


def units(network: Network) -> list[Unit]:
    """Return the modules of the trunk in the order they run: the network's children, and the children of rows
    (Sequential and the like) in which the resolution changes."""
    seen = _observe(network.module, network.architecture.input)
    order = {path: index for index, path in enumerate(seen)}
    found: list[Unit] = []

    def expand(path: str, module: nn.Module) -> None:
        for name, child in module.named_children():
            full = f"{path}.{name}".removeprefix(".")
            inner = [seen[one].resolution for one, _ in _below(full, child) if one in seen]
            uncalled = full not in seen and isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential)
            if uncalled or (full in seen and isinstance(child, nn.Sequential) and len(set(inner)) > 1):
                expand(full, child)
            elif full in seen:
                found.append(_unit(seen[full], child))

    expand("", network.module)
    return sorted(found, key=lambda unit: order[unit.tap.path])


def _below(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{path}.{name}", child) for name, child in module.named_children()]


def _unit(tap: Tap, module: nn.Module) -> Unit:
    parameters = next(module.parameters(), None) is not None
    return Unit(
        tap,
        shallow=all(next(child.children(), None) is None for child in module.children()),
        parameters=parameters,
        # A pool, or what is left in its place.
        pool=("pool" in type(module).__name__.lower() or isinstance(module, nn.Identity)) and not parameters,
    )


def _observe(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, Tap]:
    """Return every layer that runs once and whose output is a map or tokens, in the order they end."""
    outputs: dict[str, tuple[Tensor, int]] = {}
    calls: dict[str, int] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            calls[path] = calls.get(path, 0) + 1
            if isinstance(output, Tensor) and output.dim() in (3, 4) and output.is_floating_point():
                outputs[path] = (output, output._version)

        return hook

    first = next(module.parameters(), torch.zeros(0))
    with hooked(module, note), evaluating(module), torch.no_grad():
        module(torch.zeros(1, *shape, device=first.device))
    return {
        path: Tap(path, tuple(output.shape[1:]), _layout(tuple(output.shape[1:])), copied=output._version != version)
        for path, (output, version) in outputs.items()
        if calls[path] == 1 and output.shape[0] == 1
    }


def _layout(shape: tuple[int, ...]) -> str:
    """Return how an output is laid out; the images are square, and so are the maps."""
    if len(shape) == 2:
        return "tokens"
    return "nhwc" if shape[0] == shape[1] != shape[2] else "nchw"
