"""Leave out blocks of a network's stages."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdtool.errors import Error, UsageError
from kdtool.models import sanity
from kdtool.models.architecture import Architecture, Network, capture, skeleton
from kdtool.models.edits import base_path, drop_modules
from kdtool.models.reinit import fill
from kdtool.surgery.depth.stages import Stage, stages_of
from kdtool.surgery.depth.verify import inseparable_stages
from kdtool.surgery.slicing.attributes import fit_attributes
from kdtool.surgery.slicing.tensors import slice_tensors
from kdtool.surgery.tracing.trace import trace


def drop_blocks(
    network: Network,
    *,
    keep: Sequence[int] | None = None,
    blocks: int | None = None,
    times: int = 1,
    init: str = "fresh",
) -> Network:
    """Return a copy of the network with fewer blocks in its stages.

    ``keep`` is the number of blocks that stay in each stage, ``blocks`` that in all stages together; without them
    each stage has half of its blocks (rounded down, at least one), ``times`` times over. The head of a stage stays, the
    others that stay are spread evenly. With ``init="fresh"`` the weights are drawn anew under the current random
    state, with ``"inherit"`` they are those of the blocks that stay.

    Raises:
        UsageError: ``keep`` or ``blocks`` does not fit the stages; the message says which were found.
        Error: the network has no stages, or does not run afterwards.
    """
    architecture = network.architecture
    found = find_stages(network)
    counts = planned(architecture, found, keep, blocks, times)
    dropped = [path for stage, count in zip(found, counts, strict=True) for path in left_out(stage, count)]
    _hold_the_others(network, found, set(dropped))
    module = copy.deepcopy(network.module).cpu().float().eval()
    dense = {path for stage in found if stage.dense for path in stage.blocks} & set(dropped)
    if dense:
        _cut_consumers(architecture, module, dense)
    originals = [base_path(module, path, architecture.dropped) for path in dropped]
    drop_modules(module, dropped)
    text = ", ".join(str(count) for count in counts)
    sanity.check(architecture, module, f"blocks of its stages cut to [{text}]")
    return finished(network, module, originals, init)


def finished(network: Network, module: nn.Module, dropped: Sequence[str], init: str) -> Network:
    """Return an edited module as a network, with fresh weights where ``init`` says so."""
    refined = capture(network.architecture, module, dropped=dropped)
    if init == "fresh":
        fill(module, skeleton(refined))
    return Network(refined, module.eval())


def find_stages(network: Network) -> list[Stage]:
    """Return the network's stages.

    Raises:
        Error: there are none.
    """
    found = stages_of(network)
    if not found:
        raise Error(
            f"{network.architecture.spec}: has no stages of residual or dense blocks that could be left out; "
            "make it narrower instead: halve"
        )
    return found


def planned(
    architecture: Architecture,
    found: Sequence[Stage],
    keep: Sequence[int] | None,
    blocks: int | None,
    times: int,
) -> list[int]:
    """Return how many blocks stay in each stage.

    Raises:
        UsageError: more or fewer stages or blocks are asked for than there are, or nothing would change.
    """
    have = [len(stage.blocks) for stage in found]
    says = f"{architecture.spec} has stages of {have} blocks ({', '.join(stage.name for stage in found)})"
    if keep is not None and blocks is not None:
        raise UsageError("--keep and --blocks are two ways to say the same; give one")
    if keep is not None:
        if len(keep) != len(have):
            raise UsageError(f"--keep {_text(keep)}: {len(keep)} stages were given, but {says}")
        if any(not 1 <= count <= most for count, most in zip(keep, have, strict=True)):
            raise UsageError(f"--keep {_text(keep)}: each stage keeps from 1 to all of its blocks; {says}")
        counts = list(keep)
    elif blocks is not None:
        if not len(have) <= blocks <= sum(have):
            raise UsageError(f"--blocks {blocks}: must be from {len(have)} to {sum(have)}; {says}")
        counts = spread(found, blocks)
    else:
        counts = have
        for _ in range(times):
            counts = [max(1, count // 2) for count in counts]
    if counts == have:
        raise Error(f"{says}: none would be left out; make it narrower instead: halve")
    return counts


def spread(found: Sequence[Stage], blocks: int) -> list[int]:
    """Return how many blocks stay in each stage when ``blocks`` stay in all.

    Each stage has equally many, as far as it has them; what is left goes to the stages that would otherwise lose
    most parameters. ResNet-34, [3, 4, 6, 3], with 12, 9, 6 and 4 blocks is Table 1 of Kulkarni et al. (2021).
    """
    counts = [1] * len(found)
    while sum(counts) < blocks:
        open_ = [i for i, stage in enumerate(found) if counts[i] < len(stage.blocks)]
        lowest = min(counts[i] for i in open_)
        level = [i for i in open_ if counts[i] == lowest]
        if sum(counts) + len(level) <= blocks:
            for i in level:
                counts[i] += 1
        else:
            counts[max(level, key=lambda i: _lost(found[i], counts[i]))] += 1
    return counts


def left_out(stage: Stage, count: int) -> list[str]:
    """Return the blocks of a stage that go when ``count`` stay: the head and others, evenly spaced."""
    rest = stage.blocks[1:]
    kept = {rest[i * len(rest) // (count - 1)] for i in range(count - 1)}
    return [block for block in rest if block not in kept]


def _hold_the_others(network: Network, found: Sequence[Stage], dropped: set[str]) -> None:
    """Check that no more than these blocks would go.

    Raises:
        Error: the network does more between its blocks than to run them.
    """
    rows: dict[str, list[list[str]]] = {}
    for stage in found:
        if not stage.dense:
            here = rows.setdefault(stage.name, [])
            for block in stage.blocks:
                here[-1:] = [[*here[-1], block]] if block in dropped else [*here[-1:], [block]]
    bad = inseparable_stages(network.module, network.architecture.input, rows)
    if bad:
        raise Error(
            f"{network.architecture.spec}: leaving out blocks of {', '.join(sorted(bad))} would change more "
            "than these blocks; keep all of them, or halve"
        )


def _lost(stage: Stage, count: int) -> int:
    gone = set(left_out(stage, count))
    return sum(size for block, size in zip(stage.blocks, stage.parameters, strict=True) if block in gone)


def _cut_consumers(architecture: Architecture, module: nn.Module, dense: set[str]) -> None:
    """Cut the channels of dense blocks that go from all layers that read them, in place."""
    last = {path: _last_mixing(module.get_submodule(path)) for path in dense}
    silenced = {f"{path}.{name}".removesuffix(".") for path, name in last.items()}

    def choose(path: str, layer: nn.Module) -> Tensor:
        return torch.arange(0 if path in silenced else _outputs(layer))

    flow = trace(module, architecture.input, choose)
    for path in list(flow.outputs):
        if any(path == block or path.startswith(f"{block}.") for block in dense):
            # These go as a whole.
            flow.outputs.pop(path)
            flow.inputs.pop(path, None)
    flow.tensors = {
        name: dims for name, dims in flow.tensors.items() if not any(name.startswith(f"{b}.") for b in dense)
    }
    widths = slice_tensors(module, flow, lambda path, dim, size: torch.arange(size))
    fit_attributes(module, widths)


def _last_mixing(block: nn.Module) -> str:
    """Return the path of a block's last convolution, whose output the block adds to the others."""
    paths: list[str] = [path for path, part in block.named_modules() if isinstance(part, nn.modules.conv._ConvNd)]
    return paths[-1]


def _outputs(layer: nn.Module) -> int:
    return int(getattr(layer, "out_features", 0) or getattr(layer, "out_channels", 0))


def _text(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers)
