"""What pruning costs beside Torch-Pruning and torch.nn.utils.prune: CPU time of one thread, in turns, medians.

Structured: half of the parameters of ResNet-50 at 224 pixels go, without retraining; Torch-Pruning's MetaPruner with
the same importance. "Alone" is the step in memory; "file to file" is from a checkpoint that is read to one that is
written, as the command does it, where Torch-Pruning's side reads and writes a state_dict. Ours proves its result: it
follows the channels a second time, trains a step, and builds the network anew from its plain data. Goal: at most 2.
Unstructured: 80 % of ResNet-50's weights by magnitude, against prune.global_unstructured and prune.remove. Goal: 2.
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
from kdtool.pruning.masks import least, without
from kdtool.training.zeros import prunable
from kdtool_pruners.filter_l1 import filter_norms

TURNS = 5
NETWORK = "timm:resnet50"
THEIRS = 0.3
"""The ratio of channels at which Torch-Pruning removes about half of the parameters too."""


def seconds(function: Callable[[], Any]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def in_turns(name: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    ours(), theirs()
    taken = [(seconds(ours), seconds(theirs)) for _ in range(TURNS)]
    mine, other = (statistics.median(column) for column in zip(*taken, strict=True))
    print(f"{name}: {mine:.2f} s, theirs {other:.2f} s, ratio {mine / other:.2f}", flush=True)


def torch_pruning(module: torch.nn.Module) -> None:
    importance = tp.importance.GroupMagnitudeImportance(p=1)
    image = torch.rand(1, 3, 224, 224)
    told = {"pruning_ratio": THEIRS, "global_pruning": True, "round_to": 16, "ignored_layers": [module.fc]}
    tp.pruner.MetaPruner(module, image, importance=importance, **told).step()


def structured(folder: Path) -> None:
    teacher = kdtool.teacher(NETWORK, output=folder / "teacher.pt")
    torch.save(teacher.module.state_dict(), folder / "theirs.pt")

    def ours() -> None:
        kdtool.prune(folder / "teacher.pt", "filter-l1", ratio=0.5, epochs=0, output=folder / "small.pt", force=True)

    def theirs() -> None:
        module = copy.deepcopy(teacher.module)
        module.load_state_dict(torch.load(folder / "theirs.pt", weights_only=True))
        torch_pruning(module)
        torch.save(module.state_dict(), folder / "theirs-small.pt")

    in_turns(
        "structured, alone",
        lambda: kdtool.surgery.remove_channels(teacher.network, ratio=0.5, importance=filter_norms),
        lambda: torch_pruning(copy.deepcopy(teacher.module)),
    )
    in_turns("structured, file to file", ours, theirs)


def unstructured(folder: Path) -> None:
    network = kdtool.load(folder / "teacher.pt").network

    def ours() -> None:
        without(network, least({name: one.abs() for name, one in prunable(network.module).items()}, 0.8).masks)

    def theirs() -> None:
        module = copy.deepcopy(network.module)
        layers = [(one, "weight") for one in module.modules() if isinstance(one, torch.nn.Conv2d | torch.nn.Linear)]
        prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=0.8)
        for layer, name in layers:
            prune.remove(layer, name)

    in_turns("magnitude", ours, theirs)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        structured(Path(scratch))
        unstructured(Path(scratch))
