"""Leave out blocks of a network's stages, and cut the layers that read the channels of dense blocks."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from kdtool.errors import Error, UsageError
from kdtool.models import sanity
from kdtool.models.architecture import Architecture, Network, capture, skeleton
from kdtool.models.edits import base_path, drop_modules
from kdtool.models.layers import outputs_of
from kdtool.models.reinit import fill
from kdtool.surgery.depth.stages import Stage, stages_of
from kdtool.surgery.depth.verify import inseparable_stages
from kdtool.surgery.slicing.attributes import fit_attributes
from kdtool.surgery.slicing.inherited import InheritedNetwork
from kdtool.surgery.slicing.tensors import slice_tensors
from kdtool.surgery.tracing.trace import trace

_OTHER_WAY = "use a refiner that narrows layers instead"


def drop_blocks(
    network: Network,
    *,
    keep: Sequence[int] | None = None,
    blocks: int | None = None,
    times: int = 1,
    init: str = "fresh",
    stay: Collection[str] = (),
) -> Network:
    """Return a copy of the network with fewer blocks in its stages.

    ``keep`` is the number of blocks that stay in each stage, ``blocks`` the number that stays in all stages together.
    Without either, the number of blocks of each stage is halved ``times`` times (rounded down, at least one). The head
    of a stage always stays, as do the blocks with the paths ``stay``; the others that stay are evenly spaced. With
    ``init="fresh"`` the weights are drawn from the current random state, with ``"inherit"`` they are copied from the
    blocks that stay.

    Raises:
        UsageError: ``keep`` or ``blocks`` does not fit the stages, for which the message lists the stages of the
            network; or more than one of ``keep``, ``blocks`` and ``times`` is given.
        Error: ``init`` or ``times`` is invalid; or the network has no stages, has no block to leave out, or does not
            run without the blocks.
    """
    architecture = network.architecture
    if init not in ("fresh", "inherit"):
        raise Error(f"{architecture.spec}: unknown init {init!r}; choose fresh or inherit")
    if times < 1:
        raise Error(f"{architecture.spec}: halving its blocks {times} times leaves out none; give 1 or more")
    stages = find_stages(network)
    counts = planned(architecture, stages, keep, blocks, times, stay)
    dropped = [path for stage, count in zip(stages, counts, strict=True) for path in left_out(stage, count, stay)]
    _check_only_these_change(network, stages, set(dropped))
    module = copy.deepcopy(network.module).cpu().float().eval()
    dense = {path for stage in stages if stage.dense for path in stage.blocks} & set(dropped)
    if dense:
        _cut_consumers(architecture, module, dense)
    originals = [base_path(module, path, architecture.dropped) for path in dropped]
    drop_modules(module, dropped)
    text = ", ".join(str(count) for count in counts)
    sanity.check(architecture, module, f"blocks of its stages cut to [{text}]")
    return finished(network, module, originals, init)


def finished(network: Network, module: nn.Module, dropped: Sequence[str], init: str) -> Network:
    """Return an edited module as a network; with ``init="fresh"`` its weights are drawn from the random state.

    ``dropped`` are the paths in the base network of the blocks that this edit left out.
    """
    refined = capture(network.architecture, module, dropped=dropped)
    if init == "fresh":
        fill(module, skeleton(refined))
        return Network(refined, module.eval())
    return InheritedNetwork(refined, module.eval())


def find_stages(network: Network) -> list[Stage]:
    """Return the network's stages, at least one.

    Raises:
        Error: the network has none.
    """
    stages = stages_of(network)
    if not stages:
        raise Error(
            f"{network.architecture.spec}: has no stages of residual or dense blocks that could be left out; "
            f"{_OTHER_WAY}"
        )
    return stages


def planned(
    architecture: Architecture,
    stages: Sequence[Stage],
    keep: Sequence[int] | None,
    blocks: int | None,
    times: int,
    stay: Collection[str] = (),
) -> list[int]:
    """Return how many blocks stay in each stage, no fewer than its head and those that have to ``stay``.

    Raises:
        UsageError: ``keep`` or ``blocks`` does not fit the stages of the network, or ``times`` is given beside it.
        Error: no block would be left out.
    """
    sizes = [len(stage.blocks) for stage in stages]
    least = [1 + len({*stage.blocks[1:]} & {*stay}) for stage in stages]
    summary = f"{architecture.spec} has stages of {sizes} blocks ({', '.join(stage.name for stage in stages)})"
    if keep is not None and blocks is not None:
        raise UsageError("--keep and --blocks both set the number of blocks; give one of them")
    if times != 1 and (keep is not None or blocks is not None):
        other = "--keep" if keep is not None else "--blocks"
        raise UsageError(f"{other} and --times both set the number of blocks; give one of them")
    if keep is not None:
        if len(keep) != len(sizes):
            raise UsageError(f"--keep {_text(keep)}: {len(keep)} stages were given, but {summary}")
        if any(not 1 <= count <= size for count, size in zip(keep, sizes, strict=True)):
            raise UsageError(f"--keep {_text(keep)}: each stage keeps from 1 to all of its blocks; {summary}")
        counts = list(keep)
        if any(count < lowest for count, lowest in zip(counts, least, strict=True)):
            raise UsageError(
                f"--keep {_text(keep)}: with --only and --skip at least {_text(least)} blocks stay; {summary}"
            )
    elif blocks is not None:
        if not sum(least) <= blocks <= sum(sizes):
            raise UsageError(f"--blocks {blocks}: must be from {sum(least)} to {sum(sizes)}; {summary}")
        counts = spread(stages, blocks, least)
    else:
        halvings = min(times, max(sizes).bit_length())  # after these all counts are the least
        counts = [max(lowest, size >> halvings) for size, lowest in zip(sizes, least, strict=True)]
    if counts == sizes:
        raise Error(f"{summary}: none would be left out; {_OTHER_WAY}")
    return counts


def spread(stages: Sequence[Stage], blocks: int, least: Sequence[int] = ()) -> list[int]:
    """Return how many blocks stay in each stage when ``blocks`` stay in all together; ``least`` is the fewest of each.

    All stages keep the same number, as far as they have as many. Blocks that are left over go to the stages that would
    otherwise lose the most parameters. For ResNet-34, [3, 4, 6, 3], with 12, 9, 6 and 4 blocks the result is Table 1 of
    Kulkarni et al. (2021).
    """
    counts = list(least) or [1] * len(stages)
    while sum(counts) < blocks:
        unfilled = [i for i, stage in enumerate(stages) if counts[i] < len(stage.blocks)]
        lowest = min(counts[i] for i in unfilled)
        level = [i for i in unfilled if counts[i] == lowest]
        if sum(counts) + len(level) <= blocks:
            for i in level:
                counts[i] += 1
        else:
            counts[max(level, key=lambda i: _lost_parameters(stages[i], counts[i]))] += 1
    return counts


def left_out(stage: Stage, count: int, stay: Collection[str] = ()) -> list[str]:
    """Return the blocks of a stage that go when ``count`` stay: the head, ``stay`` and others, evenly spaced."""
    rest = [block for block in stage.blocks[1:] if block not in stay]
    free = count - (len(stage.blocks) - len(rest))
    kept = {rest[i * len(rest) // free] for i in range(free)}
    return [block for block in rest if block not in kept]


def _check_only_these_change(network: Network, stages: Sequence[Stage], dropped: set[str]) -> None:
    """Check that leaving out these residual blocks changes nothing else in the network.

    Raises:
        Error: the network does more with its blocks than apply them in sequence.
    """
    rows: dict[str, list[list[str]]] = {}
    for stage in stages:
        if not stage.dense:
            stage_rows = rows.setdefault(stage.name, [])
            for block in stage.blocks:
                if block in dropped:
                    stage_rows[-1].append(block)
                else:
                    stage_rows.append([block])
    bad = inseparable_stages(network.module, network.architecture.input, rows)
    if bad:
        raise Error(
            f"{network.architecture.spec}: leaving out blocks of {', '.join(sorted(bad))} would change more "
            "than these blocks; keep all of them, or use a refiner that narrows layers"
        )


def _lost_parameters(stage: Stage, count: int) -> int:
    """Return how many parameters a stage loses when ``count`` of its blocks stay."""
    gone = set(left_out(stage, count))
    return sum(size for block, size in zip(stage.blocks, stage.parameters, strict=True) if block in gone)


def _cut_consumers(architecture: Architecture, module: nn.Module, dense: set[str]) -> None:
    """Cut the channels that the dropped dense blocks add from all layers that read them, in place."""
    last = {path: _last_convolution(module.get_submodule(path)) for path in dense}
    without_outputs = {f"{path}.{name}".removesuffix(".") for path, name in last.items()}

    def choose(path: str, layer: nn.Module) -> Tensor:
        return torch.arange(0 if path in without_outputs else outputs_of(layer))

    flow = trace(module, architecture.input, choose)
    for path in list(flow.outputs):
        if any(path == block or path.startswith(f"{block}.") for block in dense):
            # The whole block is removed later, so its own layers need no cut.
            flow.outputs.pop(path)
            flow.inputs.pop(path, None)
    flow.tensors = {
        name: dims for name, dims in flow.tensors.items() if not any(name.startswith(f"{block}.") for block in dense)
    }
    widths = slice_tensors(module, flow, lambda path, dim, size: torch.arange(size))
    fit_attributes(module, widths)


def _last_convolution(block: nn.Module) -> str:
    """Return the path of a block's last convolution, whose output the block concatenates to its input."""
    paths: list[str] = [path for path, part in block.named_modules() if isinstance(part, nn.modules.conv._ConvNd)]
    return paths[-1]


def _text(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers)
