"""Find the stages of a network: rows of residual or dense blocks of which some can be left out."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kdtool.errors import FAILURES, Error, first_line
from kdtool.models.architecture import Architecture, Network, skeleton
from kdtool.models.edits import drop_modules
from kdtool.models.modules import ITERATED, insert_projector
from kdtool.models.no_init import without_init
from kdtool.surgery.depth.observe import Observation, observe, sizes
from kdtool.surgery.depth.verify import inseparable_stages

Block = tuple[str, nn.Module]
"""The path of a module and the module."""


@dataclass(frozen=True)
class Stage:
    """A head, which always stays, and the blocks behind it, each of which may be left out.

    ``blocks`` are the paths of all blocks, the head first, and ``parameters`` their numbers of parameters. In a
    ``dense`` stage each block concatenates its own channels to those before it. When such a block goes, the layers
    that read its channels have to be cut.
    """

    name: str
    blocks: tuple[str, ...]
    parameters: tuple[int, ...]
    dense: bool = False


def stages(module: nn.Module, shape: tuple[int, int, int]) -> list[Stage]:
    """Return the stages of a network for images of ``shape`` [channels, height, width], in the order they run.

    The blocks of a stage are children of one module and have children themselves. The blocks behind the head are of
    the head's class, run once, return the shape that they receive, and are residual: with the weights of convolutions
    and linear layers at zero, the output still follows the input. If each block receives the outputs of all blocks
    before it, the stage is dense. A block is only droppable if the network applies nothing but the blocks in sequence;
    other blocks make no stage.

    Raises:
        RuntimeError: or any other exception that the network's own forward raises.
    """
    probe = copy.deepcopy(module).cpu().float().eval()
    return _droppable(module, shape, _stages(probe, observe(probe, shape)))


def stages_of(network: Network) -> list[Stage]:
    """Return the stages of the network's base, each with the blocks that earlier edits left, under their present paths.

    Raises:
        Error: the network's own forward fails, or its blocks both add to their input and concatenate channels to it.
    """
    architecture = network.architecture
    whole = dataclasses.replace(architecture, dropped=(), attributes={}, buffers={}, selects={}, projectors={})
    base = without_init(lambda: skeleton(whole)).eval()
    try:
        observations = observe(base, architecture.input)
        whole_stages = _stages(base, observations)
        if not whole_stages:
            _refuse_dual_paths(architecture, observations, base)
        parts = dict(base.named_modules())
        drop_modules(base, architecture.dropped)
        for path, channels in architecture.projectors.items():
            insert_projector(base, path, channels)
        now = {id(part): path for path, part in base.named_modules()}
        present = []
        for stage in whole_stages:
            blocks = [(path, network.module.get_submodule(path)) for path in _present_paths(stage, parts, now)]
            present.append(_stage(stage.name, blocks, dense=stage.dense))
        return _droppable(network.module, architecture.input, present)
    except FAILURES as error:
        raise Error(
            f"{architecture.spec}: its stages cannot be found ({first_line(error)}); use a refiner that narrows layers "
            "instead"
        ) from error


def _refuse_dual_paths(architecture: Architecture, observations: dict[str, Observation], base: nn.Module) -> None:
    """Check that no blocks both add to their input and concatenate channels to it.

    Such blocks are those of Chen et al., Dual Path Networks, 2017, arXiv:1707.01629.

    Raises:
        Error: two or more blocks of one class do.
    """
    growing = [path for path, observation in observations.items() if observation.grows]
    classes = [type(base.get_submodule(path)) for path in growing]
    if any(classes.count(kind) > 1 for kind in classes):
        raise Error(
            f"{architecture.spec}: its blocks, such as {growing[0]}, both add to their input and concatenate channels "
            "to it, and cannot be left out; use a refiner that narrows layers instead"
        )


def _present_paths(stage: Stage, parts: dict[str, nn.Module], now: dict[int, str]) -> list[str]:
    """Return the present paths of those blocks of a stage that earlier edits left."""
    return [now[id(parts[path])] for path in stage.blocks if id(parts[path]) in now]


def _droppable(module: nn.Module, shape: tuple[int, int, int], candidates: list[Stage]) -> list[Stage]:
    """Return the stages whose blocks can be left out, tested by leaving out every second block."""
    rows = {
        stage.name: [stage.blocks[start : start + 2] for start in range(0, len(stage.blocks) - 1, 2)]
        for stage in candidates
        if not stage.dense
    }
    bad = inseparable_stages(module, shape, rows)
    return [stage for stage in candidates if stage.name not in bad]


def _stages(probe: nn.Module, observations: dict[str, Observation]) -> list[Stage]:
    """Return the candidates for stages that the observations of a network's blocks show."""
    order = {path: index for index, path in enumerate(observations)}
    candidates: list[Stage] = []
    for path, parent in probe.named_modules():
        prefix = f"{path}." if path else ""
        blocks = [(f"{prefix}{name}", child) for name, child in parent.named_children()]
        by_name = not isinstance(parent, ITERATED)
        candidates += _dense(path, blocks, observations) or _residual(path, blocks, observations, by_name)
    inner = {block for stage in candidates for block in stage.blocks}
    outermost = [stage for stage in candidates if not _parents(stage.blocks[0]) & inner]
    return sorted(outermost, key=lambda stage: order[stage.blocks[0]])


def _parents(path: str) -> set[str]:
    """Return the paths of all modules that contain the module at this path, without the root."""
    names = path.split(".")
    return {".".join(names[:count]) for count in range(1, len(names))}


def _residual(path: str, blocks: list[Block], observations: dict[str, Observation], by_name: bool) -> list[Stage]:
    """Return the stages among a module's children: each a head and at least one residual block.

    Children that a module calls ``by_name`` may also be the parts of one block, such as attention and the layers behind
    it. Parts are recognised by their first weights, which differ in shape; the first weights of blocks do not.
    """
    groups: list[list[Block]] = []
    previous: Block | None = None
    for name, block in blocks:
        run = observations.get(name)
        if run is None or run.calls > 1 or (isinstance(block, ITERATED) and (by_name or _is_row(block))):
            previous = None
            continue
        if previous is not None and _follows(observations[previous[0]], run) and type(previous[1]) is type(block):
            groups[-1].append((name, block))
        else:
            groups.append([(name, block)])
        previous = (name, block)
    groups = [group for group in groups if len(group) > 1]
    if by_name:
        groups = [group for group in groups if len({_first_shape(block) for _, block in group[1:]}) == 1]
    return [_stage(path if len(groups) == 1 and path else group[0][0], group) for group in groups]


def _is_row(container: nn.Module) -> bool:
    """Return whether a container is a row of similar blocks, and not itself a block."""
    kinds = [(type(child), _first_shape(child)) for child in container.children()]
    return len(kinds) > 1 and kinds[0][1] != () and len(set(kinds)) == 1


def _first_shape(block: nn.Module) -> tuple[int, ...]:
    """Return the shape of a block's first weight that belongs to no norm or scale, () if it has none."""
    return next((tuple(weight.shape) for weight in block.parameters() if weight.dim() > 1), ())


def _follows(before: Observation, run: Observation) -> bool:
    """Return whether a block is residual and receives the shape that the block before it returns."""
    return run.correlation > 0.5 and sizes(before.output)[:1] == sizes(run.inputs)[:1]


def _stage(name: str, blocks: list[Block], *, dense: bool = False) -> Stage:
    """Return these blocks as a stage, with their numbers of parameters."""
    parameters = tuple(sum(parameter.numel() for parameter in block.parameters()) for _, block in blocks)
    return Stage(name, tuple(path for path, _ in blocks), parameters, dense)


def _dense(path: str, blocks: list[Block], observations: dict[str, Observation]) -> list[Stage]:
    """Return these blocks as one stage if each receives the concatenated outputs of all before it, else no stage."""
    if len(blocks) < 2 or len({type(block) for _, block in blocks}) > 1:
        return []
    runs = [observations.get(name) for name, _ in blocks]
    inputs = [_channels(run.inputs) if run is not None and run.calls == 1 else None for run in runs]
    map_sizes = {size[2:] for run in runs if run is not None for size in sizes(run.inputs) + sizes(run.output)}
    if len(map_sizes) != 1:
        return []
    outputs = [_channels(run.output) if run is not None else None for run in runs]
    for before, added, after in zip(inputs, outputs, inputs[1:], strict=False):
        if before is None or added is None or after is None or after != before + added:
            return []
    return [_stage(path, blocks, dense=True)]


def _channels(value: Any) -> int | None:
    """Return the channels of a feature map, or of a list of feature maps together; None for other values."""
    if isinstance(value, Tensor):
        return int(value.shape[1]) if value.dim() == 4 else None
    if (
        isinstance(value, list | tuple)
        and value
        and all(isinstance(item, Tensor) and item.dim() == 4 for item in value)
    ):
        return sum(int(item.shape[1]) for item in value)
    return None
