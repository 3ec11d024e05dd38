"""Find the stages of a network: where it repeats a residual block that could be left out."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import FAILURES, Error
from kdtool.models.architecture import Architecture, Network, skeleton
from kdtool.models.edits import drop_modules
from kdtool.models.modules import ITERATED, insert_projector
from kdtool.models.no_init import NoInit
from kdtool.surgery.depth.observe import Observation, observe, sizes
from kdtool.surgery.depth.verify import inseparable_stages

Block = tuple[str, nn.Module]
"""A module with its path."""


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


def stages(module: nn.Module, shape: tuple[int, int, int]) -> list[Stage]:
    """Return the stages of a network for images of ``shape`` (channels, height, width), in the order they run.

    Looked at are the children of one module that hold modules themselves. The blocks behind the head are of its class,
    run once, return the shape they are given, and are residual: with the weights of convolutions and linear layers at
    zero, the output still follows the input. Where each block is given the outputs of all blocks before it, the stage
    is dense. Blocks that a network cannot do without, because it does more between them than to run them, are none.

    Raises:
        RuntimeError: or whatever else the network's own forward raises.
    """
    probe = copy.deepcopy(module).cpu().float().eval()
    return _spare(module, shape, _stages(probe, observe(probe, shape)))


def stages_of(network: Network) -> list[Stage]:
    """Return the stages of the network's base, each with the blocks that are left of it, as they are called now.

    Raises:
        Error: the network's own forward fails, or its blocks are residual but cannot be left out.
    """
    architecture = network.architecture
    whole = dataclasses.replace(architecture, dropped=(), attributes={}, buffers={}, selects={}, projectors={})
    with torch.random.fork_rng(devices=[]), NoInit():
        base = skeleton(whole).eval()
    try:
        seen = observe(base, architecture.input)
        found = _stages(base, seen)
        if not found:
            _refuse_dual_paths(architecture, seen, base)
        parts = dict(base.named_modules())
        drop_modules(base, architecture.dropped)
        for path, channels in architecture.projectors.items():
            insert_projector(base, path, channels)
        now = {id(part): path for path, part in base.named_modules()}
        left = []
        for stage in found:
            blocks = [(path, network.module.get_submodule(path)) for path in _called(stage, parts, now)]
            left.append(_stage(stage.name, blocks, dense=stage.dense))
        return _spare(network.module, architecture.input, left)
    except FAILURES as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Error(f"{architecture.spec}: its stages cannot be found ({reason}); use halve") from error


def _refuse_dual_paths(architecture: Architecture, seen: dict[str, Observation], base: nn.Module) -> None:
    """Refuse blocks that add to what they are given and put channels beside it at once (Chen et al., 2017)."""
    growing = [path for path, run in seen.items() if run.grows]
    rows = [type(base.get_submodule(path)) for path in growing]
    if any(rows.count(kind) > 1 for kind in rows):
        raise Error(
            f"{architecture.spec}: its blocks both add to what they are given and put channels beside it, as "
            f"{growing[0]} does, which cannot be left out; make it narrower instead: halve"
        )


def _called(stage: Stage, parts: dict[str, nn.Module], now: dict[int, str]) -> list[str]:
    return [now[id(parts[path])] for path in stage.blocks if id(parts[path]) in now]


def _spare(module: nn.Module, shape: tuple[int, int, int], found: list[Stage]) -> list[Stage]:
    """Return the stages whose blocks the network can do without, tried with every second one."""
    rows = {
        stage.name: [stage.blocks[at : at + 2] for at in range(0, len(stage.blocks) - 1, 2)]
        for stage in found
        if not stage.dense
    }
    bad = inseparable_stages(module, shape, rows)
    return [stage for stage in found if stage.name not in bad]


def _stages(probe: nn.Module, seen: dict[str, Observation]) -> list[Stage]:
    """Return what looks like stages, of what was seen of a network's blocks."""
    order = {path: index for index, path in enumerate(seen)}
    found: list[Stage] = []
    for path, parent in probe.named_modules():
        prefix = f"{path}." if path else ""
        blocks = [(f"{prefix}{name}", child) for name, child in parent.named_children()]
        by_name = not isinstance(parent, ITERATED)
        found += _dense(path, blocks, seen) or _residual(path, blocks, seen, by_name)
    inner = {block for stage in found for block in stage.blocks}
    outermost = [stage for stage in found if not _parents(stage.blocks[0]) & inner]
    return sorted(outermost, key=lambda stage: order[stage.blocks[0]])


def _parents(path: str) -> set[str]:
    names = path.split(".")
    return {".".join(names[:count]) for count in range(1, len(names))}


def _residual(path: str, blocks: list[Block], seen: dict[str, Observation], by_name: bool) -> list[Stage]:
    """Return the stages among a module's children: each a head and at least one residual block.

    What a module calls ``by_name`` may be the parts of one block as well, such as attention and what follows it: those
    are told by that they do not begin alike.
    """
    groups: list[list[Block]] = []
    previous: Block | None = None
    for name, block in blocks:
        run = seen.get(name)
        if run is None or run.calls > 1 or (isinstance(block, ITERATED) and (by_name or _is_row(block))):
            previous = None
            continue
        if previous is not None and _follows(seen[previous[0]], run) and type(previous[1]) is type(block):
            groups[-1].append((name, block))
        else:
            groups.append([(name, block)])
        previous = (name, block)
    groups = [group for group in groups if len(group) > 1]
    if by_name:
        groups = [group for group in groups if len({_begins(block) for _, block in group[1:]}) == 1]
    return [_stage(path if len(groups) == 1 and path else group[0][0], group) for group in groups]


def _is_row(container: nn.Module) -> bool:
    """Whether this is a row of blocks that begin alike itself, and not one of them."""
    begins = [(type(child), _begins(child)) for child in container.children()]
    return len(begins) > 1 and begins[0][1] != () and len(set(begins)) == 1


def _begins(block: nn.Module) -> tuple[int, ...]:
    """Return the shape of the first weight of a block, leaving out norms and scales."""
    return next((tuple(one.shape) for one in block.parameters() if one.dim() > 1), ())


def _follows(before: Observation, run: Observation) -> bool:
    """Whether a block is residual and takes what the one before it gives."""
    return run.correlation > 0.5 and sizes(before.output)[:1] == sizes(run.inputs)[:1]


def _stage(name: str, blocks: list[Block], *, dense: bool = False) -> Stage:
    numbers = tuple(sum(parameter.numel() for parameter in block.parameters()) for _, block in blocks)
    return Stage(name, tuple(path for path, _ in blocks), numbers, dense)


def _dense(path: str, blocks: list[Block], seen: dict[str, Observation]) -> list[Stage]:
    """Return the stage whose blocks each are given the concatenated outputs of all before them."""
    if len(blocks) < 2 or len({type(block) for _, block in blocks}) > 1:
        return []
    runs = [seen.get(name) for name, _ in blocks]
    counts = [_channels(run.inputs) if run is not None and run.calls == 1 else None for run in runs]
    sides = {size[2:] for run in runs if run is not None for size in sizes(run.inputs) + sizes(run.output)}
    if len(sides) != 1:
        return []
    outputs = [_channels(run.output) if run is not None else None for run in runs]
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
