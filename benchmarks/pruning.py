"""The cost of pruning, compared with Torch-Pruning and torch.nn.utils.prune: medians of CPU time on one thread.

Structured: remove half of the parameters of ResNet-50 at 224 pixels, without retraining, compared with Torch-Pruning's
MetaPruner with the same importance. "alone" is the step in memory. "file to file" reads and writes a checkpoint, as the
command does; Torch-Pruning reads and writes a state_dict. kdtool also verifies its result: it traces the channels a
second time, trains for a step, and rebuilds the network from its plain data. Goal: a ratio of at most 2.
Unstructured: set 80 % of the weights of ResNet-50 to zero by magnitude, compared with prune.global_unstructured and
prune.remove. Goal: a ratio of at most 2.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from torch.nn.utils import prune

import kdtool
from kdtool.pruning.masks import apply_masks, lowest_scores
from kdtool.training.zeros import prunable
from kdtool_pruners.filter_l1 import filter_norms

TURNS = 5
NETWORK = "timm:resnet50"
CHANNEL_RATIO = 0.3
"""The ratio of channels at which Torch-Pruning too removes about half of the parameters."""


def seconds(function: Callable[[], Any]) -> float:
    """Return the CPU seconds of a call."""
    started = time.process_time()
    function()
    return time.process_time() - started


def in_turns(name: str, kdtool_call: Callable[[], Any], other_call: Callable[[], Any]) -> None:
    """Time two functions in turns, and print the medians and their ratio."""
    kdtool_call(), other_call()
    times = [(seconds(kdtool_call), seconds(other_call)) for _ in range(TURNS)]
    own, other = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{name}: kdtool {own:.2f} s, other {other:.2f} s, ratio {own / other:.2f}", flush=True)


def torch_pruning(module: torch.nn.Module) -> None:
    """Remove channels with Torch-Pruning, in place."""
    importance = tp.importance.GroupMagnitudeImportance(p=1)
    image = torch.rand(1, 3, 224, 224)
    options = {"pruning_ratio": CHANNEL_RATIO, "global_pruning": True, "round_to": 16, "ignored_layers": [module.fc]}
    tp.pruner.MetaPruner(module, image, importance=importance, **options).step()


def structured(folder: Path) -> None:
    """Compare the removal of channels."""
    teacher = kdtool.teacher(NETWORK, output=folder / "teacher.pt")
    torch.save(teacher.module.state_dict(), folder / "state-dict.pt")

    def with_kdtool() -> None:
        kdtool.prune(folder / "teacher.pt", "filter-l1", ratio=0.5, epochs=0, output=folder / "small.pt", force=True)

    def with_torch_pruning() -> None:
        module = copy.deepcopy(teacher.module)
        module.load_state_dict(torch.load(folder / "state-dict.pt", weights_only=True))
        torch_pruning(module)
        torch.save(module.state_dict(), folder / "small-state-dict.pt")

    in_turns(
        "structured, alone",
        lambda: kdtool.surgery.remove_channels(teacher.network, ratio=0.5, importance=filter_norms),
        lambda: torch_pruning(copy.deepcopy(teacher.module)),
    )
    in_turns("structured, file to file", with_kdtool, with_torch_pruning)


def unstructured(folder: Path) -> None:
    """Compare setting weights to zero."""
    network = kdtool.load(folder / "teacher.pt").network

    def with_kdtool() -> None:
        scores = {name: weight.abs() for name, weight in prunable(network.module).items()}
        apply_masks(network, lowest_scores(scores, 0.8).masks)

    def with_torch() -> None:
        module = copy.deepcopy(network.module)
        kinds = torch.nn.Conv2d | torch.nn.Linear
        layers = [(layer, "weight") for layer in module.modules() if isinstance(layer, kinds)]
        prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=0.8)
        for layer, name in layers:
            prune.remove(layer, name)

    in_turns("magnitude", with_kdtool, with_torch)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        structured(Path(scratch))
        unstructured(Path(scratch))
