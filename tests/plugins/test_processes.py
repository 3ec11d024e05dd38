"""Every distiller and every pruner that trains gives in two processes what it gives in one.

The networks have no batch-norm, so that a network learns the same to rounding. Losses that relate the images of a batch
to each other see those of their own process, and so do the batch-norms that some methods put on top of a network: their
results are close, not the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import kdtool
from kdtool.plugins import entry_points

# Adam divides by the size of a gradient: where that is nearly 0, rounding becomes a step of full size.
TRAINING: dict[str, Any] = {
    "epochs": 3, "batch_size": 32, "optimizer": "sgd", "lr": 0.02, "device": "cpu", "precision": "fp32"
}  # fmt: skip
DATA: dict[str, Any] = {"data": "digits", "subset": 0.2, "augment": "none"}

RELATIONS = {"cc", "crd", "dist", "mlkd", "pkt", "rkd", "sp"}
"""Losses that compare the images of a batch with each other; crd also draws random images in each process."""
OWN_BATCH_NORMS = {"ofa", "reviewkd", "self", "simkd"}
"""Methods whose projectors, fusions or exits have batch-norms."""
ROUNDED = {"stagewise"}
"""A stage learns from the outputs of the stage before it, which are rounded to float16."""

LENET = ("kdtool:lenet-5", 28)
NETWORKS = {
    "fsp": ("timm:test_convnext", 32),
    "reviewkd": ("timm:test_convnext", 32),
    "simkd": ("timm:test_resnet", 32),
    "bn-scale": ("timm:test_resnet", 32),
}
"""Networks for methods that need stages, one linear layer at the end or batch-norms."""
STEEP = {"at": 2e-4, "dist": 1e-3, "fsp": 1e-6, "pkt": 1e-3, "sp": 1e-3}
"""Learning rates for losses with a large gradient at first: in large steps, differences of rounding grow too far."""
OPTIONS: dict[str, dict[str, Any]] = {
    "assistant": {"refiner": "halve"},
    "gated": {"target_macs": "0.5x", "search_epochs": 2, "round_to": 2, "force_target": True},
    "ikd": {"iters": 2},
}
QUICK = {"kd"}
METHODS = [
    pytest.param(
        kind, plugin.name, id=f"{kind}-{plugin.name}", marks=[] if plugin.name in QUICK else [pytest.mark.slow]
    )
    for kind in ("distillers", "pruners")
    for plugin in entry_points.installed()
    if plugin.kind == kind and plugin.builtin
]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Trained networks by their name and the seed: the paths of their checkpoints."""
    folder, made = tmp_path_factory.mktemp("teachers"), {}

    def teacher(network: tuple[str, int], seed: int = 0) -> Path:
        if (network, seed) not in made:
            name, size = network
            made[network, seed] = folder / f"{name.partition(':')[2]}-{seed}.pt"
            options = {**TRAINING, **DATA, "image_size": size, "seed": seed, "keep_init": True}
            kdtool.teacher(name, output=made[network, seed], **options)
        return made[network, seed]

    return teacher


@pytest.mark.parametrize(("kind", "method"), METHODS)
def test_two_processes_learn_what_one_learns(kind, method, teachers, tmp_path, in_processes):
    network = NETWORKS.get(method, LENET)
    options = {**TRAINING, "lr": STEEP.get(method, TRAINING["lr"]), **OPTIONS.get(method, {})}
    given: Any = teachers(network)
    if kind == "distillers":
        cls = kdtool.plugins.registry.method_class(kind, method)
        given = [given, teachers(network, 1)] if cls.several_teachers else given
        if cls.needs_student and not cls.makes_student and method not in OPTIONS:
            options["student"] = network[0]
    command = {"distillers": kdtool.distill, "pruners": kdtool.prune}[kind]

    command(given, method, output=tmp_path / "one.pt", **options)
    codes = in_processes(lambda: command(given, method, output=tmp_path / "two.pt", **options))

    assert codes == [0, 0]
    one, two = (kdtool.load(tmp_path / f"{name}.pt") for name in ("one", "two"))
    assert two.history[-1]["processes"] == 2
    assert "processes" not in one.history[-1]
    assert not list(tmp_path.glob("two.run/cache*"))
    losses = [[row["loss"] for row in _epochs(tmp_path / f"{name}.run")] for name in ("one", "two")]
    phases = [[row["phase"] for row in _epochs(tmp_path / f"{name}.run")] for name in ("one", "two")]
    assert phases[0] == phases[1]
    batch_norm = any(isinstance(part, torch.nn.BatchNorm2d) for part in one.module.modules())
    if method in RELATIONS | OWN_BATCH_NORMS or batch_norm:
        assert losses[1] == pytest.approx(losses[0], rel=0.2)
        return
    rough = method in ROUNDED
    assert losses[1] == pytest.approx(losses[0], rel=1e-3 if rough else 1e-4)
    for (name, ours), theirs in zip(two.module.state_dict().items(), one.module.state_dict().values(), strict=True):
        close = torch.allclose(ours, theirs, rtol=1e-4, atol=(2e-2 if rough else 1e-4) * float(theirs.abs().max()))
        assert close, (name, float((ours - theirs).abs().max() / theirs.abs().max()))


@pytest.mark.slow
def test_two_processes_search_as_one_does(teachers, tmp_path, in_processes):
    options = {**TRAINING, "refiner": "halve", "search": "temperature=1,4"}
    teacher = teachers(LENET)

    one = kdtool.distill(teacher, "kd", output=tmp_path / "one.pt", **options)
    codes = in_processes(lambda: kdtool.distill(teacher, "kd", output=tmp_path / "two.pt", **options))

    assert codes == [0, 0]
    two = kdtool.load(tmp_path / "two.pt")
    ours, theirs = (made.history[-1]["search"] for made in (two, one))
    assert ours["chosen"] == theirs["chosen"]
    for name, tensor in one.module.state_dict().items():
        assert torch.allclose(two.module.state_dict()[name], tensor, rtol=1e-4, atol=1e-4 * float(tensor.abs().max()))


def _epochs(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_lists_name_methods_that_exist():
    names = {plugin.name for plugin in entry_points.installed()}
    assert names >= RELATIONS | OWN_BATCH_NORMS | ROUNDED | QUICK | {*NETWORKS, *OPTIONS}
