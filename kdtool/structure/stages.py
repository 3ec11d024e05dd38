"""Find the stages of a network: where it repeats a residual block that could be left out."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.architecture import Network, skeleton
from kdtool.structure.edits import drop_modules
from kdtool.structure.flow import MIXING
from kdtool.structure.project import insert_projector
from kdtool.structure.unset import Unset

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Stage:
    """A head, which stays, and the blocks behind it, each of which may be left out.

    ``blocks`` are the paths of all, the head first; ``parameters`` what each of them has. In a ``dense`` stage a block
    adds channels of its own to those before it, and what reads them has to be cut when it goes.
    """

    name: str
    blocks: tuple[str, ...]
    parameters: tuple[int, ...]
    dense: bool = False


@dataclass
class _Run:
    """What was seen of one block."""

    inputs: Any
    output: Any
    correlation: float
    calls: int = 1


def stages(module: nn.Module, shape: tuple[int, int, int]) -> list[Stage]:
    """Return the stages of a network for images of ``shape`` (channels, height, width), in the order they run.

    Looked at are the children of containers that are iterated (Sequential, ModuleList, ModuleDict). The blocks behind
    the head are of its class, not leaves, run once, return the shape they are given, and are residual: with the
    weights of convolutions and linear layers at zero, the output still follows the input. Where each block is given
    the outputs of all blocks before it, the stage is dense.

    Raises:
        RuntimeError: or whatever else the network's own forward raises.
    """
    runs = _observe(module, shape)
    order = {path: index for index, path in enumerate(runs)}
    found: list[Stage] = []
    for path, container in module.named_modules():
        if _is_container(container):
            prefix = f"{path}." if path else ""
            blocks = [(f"{prefix}{name}", child) for name, child in container.named_children()]
            found += _dense(path, blocks, runs) or _residual(path, blocks, runs)
    inner = {block for stage in found for block in stage.blocks}
    outermost = [stage for stage in found if not _parents(stage.blocks[0]) & inner]
    return sorted(outermost, key=lambda stage: order[stage.blocks[0]])


def stages_of(network: Network) -> list[Stage]:
    """Return the stages of the network's base, each with the blocks that are left of it, as they are called now.

    Raises:
        RuntimeError: or whatever else the network's own forward raises.
    """
    architecture = network.architecture
    whole = dataclasses.replace(architecture, dropped=(), attributes={}, buffers={}, selects={}, projectors={})
    with torch.random.fork_rng(devices=[]), Unset():
        base = skeleton(whole)
    found = stages(base, architecture.input)
    parts = dict(base.named_modules())
    drop_modules(base, architecture.dropped)
    for path, channels in architecture.projectors.items():
        insert_projector(base, path, channels)
    now = {id(part): path for path, part in base.named_modules()}
    left = []
    for stage in found:
        blocks = [(path, network.module.get_submodule(path)) for path in _called(stage, parts, now)]
        left.append(_stage(stage.name, blocks, dense=stage.dense))
    return left


def _called(stage: Stage, parts: dict[str, nn.Module], now: dict[int, str]) -> list[str]:
    return [now[id(parts[path])] for path in stage.blocks if id(parts[path]) in now]


def _parents(path: str) -> set[str]:
    names = path.split(".")
    return {".".join(names[:count]) for count in range(1, len(names))}


def _residual(path: str, blocks: list[tuple[str, nn.Module]], runs: dict[str, _Run]) -> list[Stage]:
    """Return the stages among a container's children: each a head and at least one residual block."""
    groups: list[list[tuple[str, nn.Module]]] = []
    previous: tuple[str, nn.Module] | None = None
    for name, block in blocks:
        run = runs.get(name)
        if run is None or run.calls > 1 or next(block.children(), None) is None or _is_row(block):
            previous = None
            continue
        if previous is not None and _follows(runs[previous[0]], run) and type(previous[1]) is type(block):
            groups[-1].append((name, block))
        else:
            groups.append([(name, block)])
        previous = (name, block)
    groups = [group for group in groups if len(group) > 1]
    return [_stage(path if len(groups) == 1 and path else group[0][0], group) for group in groups]


def _is_row(block: nn.Module) -> bool:
    """Whether this is a row of equal blocks itself, and not one of them."""
    if not isinstance(block, _CONTAINERS):
        return False
    shapes = [(type(child), *(tuple(one.shape) for one in child.parameters())) for child in block.children()]
    return len(shapes) > 1 and len(shapes[0]) > 1 and len(set(shapes)) == 1


def _follows(before: _Run, run: _Run) -> bool:
    """Whether a block is residual and takes what the one before it gives."""
    return run.correlation > 0.5 and _sizes(before.output)[:1] == _sizes(run.inputs)[:1]


def _sizes(value: Any) -> list[tuple[int, ...]]:
    values = value if isinstance(value, list) else [value]
    return [tuple(one.shape) for one in values if isinstance(one, Tensor)]


def _stage(name: str, blocks: list[tuple[str, nn.Module]], *, dense: bool = False) -> Stage:
    sizes = tuple(sum(parameter.numel() for parameter in block.parameters()) for _, block in blocks)
    return Stage(name, tuple(path for path, _ in blocks), sizes, dense)


def _dense(path: str, blocks: list[tuple[str, nn.Module]], runs: dict[str, _Run]) -> list[Stage]:
    """Return the stage whose blocks each are given the concatenated outputs of all before them."""
    if len(blocks) < 2 or len({type(block) for _, block in blocks}) > 1:
        return []
    seen = [runs.get(name) for name, _ in blocks]
    counts = [_channels(run.inputs) if run is not None and run.calls == 1 else None for run in seen]
    sides = {size[2:] for run in seen if run is not None for size in _sizes(run.inputs) + _sizes(run.output)}
    if len(sides) != 1:
        return []
    outputs = [_channels(run.output) if run is not None else None for run in seen]
    for before, added, after in zip(counts, outputs, counts[1:], strict=False):
        if before is None or added is None or after is None or after != before + added:
            return []
    return [_stage(path, blocks, dense=True)]


def _channels(value: Any) -> int | None:
    """Return the channels of feature maps, or of a list of feature maps together."""
    if isinstance(value, Tensor):
        return int(value.shape[1]) if value.dim() == 4 else None
    if isinstance(value, list | tuple) and value and all(isinstance(one, Tensor) and one.dim() == 4 for one in value):
        return sum(int(one.shape[1]) for one in value)
    return None


def _is_container(module: nn.Module) -> bool:
    """Whether a module holds blocks in a row; some classes (RegNet's stages: b1, b2, ...) are written for it alone."""
    if isinstance(module, _CONTAINERS):
        return True
    names = [name for name, _ in module.named_children()]
    stems = {name.rstrip("0123456789") for name in names}
    return len(names) > 1 and len(stems) == 1 and len({type(child) for child in module.children()}) == 1


def _observe(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, _Run]:
    """Run one image and return what was seen of the children of all containers, in the order they ran.

    Norms at their usual gain make a branch of zeros return zero, unless it pools what it is given; norms with a gain of
    zero silence that too, but also a norm behind the sum. A block is residual when one of the two shows it.
    """
    runs = _observe_with(module, shape, 1.0)
    for path, run in _observe_with(module, shape, 0.0).items():
        runs[path].correlation = max(runs[path].correlation, run.correlation)
    return runs


def _observe_with(module: nn.Module, shape: tuple[int, int, int], gain: float) -> dict[str, _Run]:
    watch = _Watch()
    probe = copy.deepcopy(module).cpu().float().eval()
    with torch.no_grad(), contextlib.ExitStack() as stack:
        _silence(probe, gain)
        for path, container in probe.named_modules():
            if _is_container(container):
                for name, child in container.named_children():
                    full = f"{path}.{name}".removeprefix(".")
                    stack.enter_context(watch.on(child, full))
        probe(torch.rand(1, *shape, generator=watch.generator))
    return watch.runs


def _silence(probe: nn.Module, gain: float) -> None:
    """Make convolutions and linear layers return zero, and give norms this gain; scales stay alive."""
    for part in probe.modules():
        mixing = isinstance(part, MIXING)
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is None or not tensor.is_floating_point() or name in part._non_persistent_buffers_set:
                continue
            silent = mixing or name in ("bias", "running_mean")
            tensor.fill_(0 if silent else gain if name == "weight" else 1)


class _Watch:
    """Stand-ins for the forward of blocks, that note what they are given and give."""

    def __init__(self) -> None:
        self.runs: dict[str, _Run] = {}
        self.generator = torch.Generator().manual_seed(0)
        self.aside = False

    @contextlib.contextmanager
    def on(self, block: nn.Module, path: str) -> Iterator[None]:
        forward: Callable[..., Any] = block.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            if self.aside:
                return forward(*args, **kwargs)
            if path in self.runs:
                self.runs[path].calls += 1
                return forward(*args, **kwargs)
            given = args or tuple(kwargs.values())[:1]
            # In its place now: the order is that in which blocks begin.
            self.runs[path] = seen = _Run(_shape_only(given[0]) if given else None, None, 0.0)
            y = forward(*args, **kwargs)
            seen.output = _shape_only(y)
            outputs = y if isinstance(y, tuple) else (y,)
            if given and _sizes(_shape_only(given[: len(outputs)])) == _sizes(_shape_only(outputs)) != []:
                seen.correlation = self._correlation(forward, args, kwargs, len(outputs))
            return y

        block.forward = run  # type: ignore[method-assign]
        try:
            yield
        finally:
            del block.__dict__["forward"]

    def _correlation(self, forward: Callable[..., Any], args: Any, kwargs: Any, count: int) -> float:
        """Return how far the outputs follow noise in place of the first ``count`` inputs."""
        given = args[:count] if args else tuple(kwargs.values())[:1]
        noise = [torch.randn(one.shape, generator=self.generator) for one in given if isinstance(one, Tensor)]
        self.aside = True
        try:
            y = (
                forward(*noise, *args[count:], **kwargs)
                if args
                else forward(**{**kwargs, next(iter(kwargs)): noise[0]})
            )
        finally:
            self.aside = False
        outputs = [one for one in (y if isinstance(y, tuple) else (y,)) if isinstance(one, Tensor)]
        return min(_correlation(x, one) for x, one in zip(noise, outputs, strict=True))


def _shape_only(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return [_shape_only(one) for one in value] if isinstance(value, list | tuple) else None


def _correlation(x: Tensor, y: Tensor) -> float:
    pair = torch.stack([x.flatten(), y.flatten()])
    value = float(torch.corrcoef(pair)[0, 1])
    return value if value == value else 0.0  # constant output: no correlation
