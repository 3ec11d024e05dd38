"""Remove channels with Torch-Pruning alone, as its own CIFAR example does, and write the rest as a checkpoint.

    python by_torch_pruning.py teacher.pt half.pt --macs 0.5
    kdtool distill teacher.pt --student half.pt --method none ...     # retrain it as kdtool prune does

Filters are ranked by their L1 norm over whole groups and compared across all layers; channels go in many small steps
until no more than the share of multiply-accumulates is left (Fang et al., 2023, arXiv:2301.12900).
"""

import argparse
import copy
from pathlib import Path

import torch
import torch_pruning as tp

import kdtool
from kdtool.models.architecture import capture

STEPS = 400


def pruned(network: kdtool.Network, share: float, *, once: bool = False) -> kdtool.Network:
    """Return the network with ``share`` of its multiply-accumulates, as Torch-Pruning cuts it.

    Filters are ranked anew before each of many small steps, or ``once``.
    """
    if not once:
        return cut(network, 1.0, STEPS, share)[0]
    low, high = 0.0, 1.0  # the ratio of channels that leaves the share
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if cut(network, middle, 1, share)[1] > share else (low, middle)
    return cut(network, high, 1, share)[0]


def cut(network: kdtool.Network, ratio: float, steps: int, share: float) -> tuple[kdtool.Network, float]:
    """Return the network without ``ratio`` of its channels, or with the share of operations that comes first."""
    module, architecture = copy.deepcopy(network.module), network.architecture
    image = torch.randn(1, *architecture.input)
    ignored = [part for part in module.modules() if getattr(part, "out_features", 0) == architecture.classes]
    pruner = tp.pruner.BasePruner(
        module,
        image,
        importance=tp.importance.GroupMagnitudeImportance(p=1),
        global_pruning=True,
        pruning_ratio=ratio,
        iterative_steps=steps,
        ignored_layers=ignored,
        in_channel_groups={},
        out_channel_groups={},
    )
    whole, _ = tp.utils.count_ops_and_params(module, image)
    left = whole
    while left > share * whole and pruner.current_step < steps:
        pruner.step()
        left, _ = tp.utils.count_ops_and_params(module, image)
    return kdtool.Network(capture(architecture, module), module.eval()), left / whole


def main() -> None:
    """Read, prune, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--macs", type=float, default=0.5, help="the share of multiply-accumulates to leave")
    parser.add_argument("--once", action="store_true", help="rank the filters once, not before each small step")
    told = parser.parse_args()
    teacher = kdtool.load(told.teacher)
    left = pruned(teacher.network, told.macs, once=told.once)
    kdtool.Checkpoint(left, teacher.data, history=teacher.history).save(told.output)


if __name__ == "__main__":
    main()
