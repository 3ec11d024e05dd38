"""Remove channels with Torch-Pruning alone, as its own CIFAR example does, and write the rest as a checkpoint.

    python by_torch_pruning.py teacher.pt half.pt --macs 0.5
    kdtool distill teacher.pt --student half.pt --method none ...     # retrain it as kdtool prune does

Filters are ranked by their L1 norm over whole groups and compared across all layers; channels go in many small steps
until no more than the share of multiply-accumulates is left (Fang et al., 2023, arXiv:2301.12900).
"""

import argparse
from pathlib import Path

import torch
import torch_pruning as tp

import kdtool
from kdtool.architecture import capture

STEPS = 400


def pruned(network: kdtool.Network, share: float) -> kdtool.Network:
    """Return the network with ``share`` of its multiply-accumulates, as Torch-Pruning cuts it."""
    module, architecture = network.module, network.architecture
    image = torch.randn(1, *architecture.input)
    ignored = [part for part in module.modules() if getattr(part, "out_features", 0) == architecture.classes]
    pruner = tp.pruner.BasePruner(
        module,
        image,
        importance=tp.importance.GroupMagnitudeImportance(p=1),
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=ignored,
        in_channel_groups={},
        out_channel_groups={},
    )
    whole, _ = tp.utils.count_ops_and_params(module, image)
    left = whole
    while left > share * whole and pruner.current_step < STEPS:
        pruner.step()
        left, _ = tp.utils.count_ops_and_params(module, image)
    return kdtool.Network(capture(architecture, module), module.eval())


def main() -> None:
    """Read, prune, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--macs", type=float, default=0.5, help="the share of multiply-accumulates to leave")
    told = parser.parse_args()
    teacher = kdtool.load(told.teacher)
    kdtool.Checkpoint(pruned(teacher.network, told.macs), teacher.data, history=teacher.history).save(told.output)


if __name__ == "__main__":
    main()
