"""Edits upon edits: whatever was done to a network, its checkpoint gives the same outputs, trains and can be edited."""

import copy
import random
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.coverage.trying import stir
from kdtool import Error, Network
from kdtool.models.architecture import capture
from kdtool.models.checkpoint import Checkpoint, read
from kdtool.models.modules import insert_select
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery import drop_blocks, halve_widths, remove_channels
from kdtool.surgery.depth.drop import find_stages
from kdtool.training.optimization.optimizer import make_optimizer
from kdtool.training.options import Training
from kdtool_pruners.filter_l1 import filter_norms

# A norm in front of a convolution that alone reads it, as residual and dense blocks name them.
GATED = (("bn1", "conv2"), ("norm1", "conv1"), ("norm2", "conv2"))


def halve(network, chance):
    return halve_widths(network, ratio=chance.choice((0.5, 0.75)), init=chance.choice(("fresh", "inherit")))


def depth(network, chance):
    """Leave out a quarter of the blocks and one more, so that there are some left for the next time."""
    found = find_stages(network)
    blocks = sum(len(stage.blocks) for stage in found)
    left = max(len(found), blocks - blocks // 4 - 1)
    return drop_blocks(network, blocks=left, init=chance.choice(("fresh", "inherit")))


def structured(network, chance):
    return remove_channels(network, ratio=0.2, importance=filter_norms, round_to=1).network


def gate(network, chance):
    """Select three of four channels before a norm, which then has as many, and so has what the next layer reads."""
    module = copy.deepcopy(network.module)
    found = [
        (f"{path}.{norm}".removeprefix("."), part, norm, conv)
        for path, part in module.named_modules()
        for norm, conv in GATED
        if isinstance(getattr(part, norm, None), nn.BatchNorm2d) and _reads(part, norm, conv)
    ]
    if not found:
        raise Error("there is no norm to gate")
    path, block, norm_name, conv_name = chance.choice(found)
    norm, conv = getattr(block, norm_name), getattr(block, conv_name)
    index = sorted(chance.sample(range(norm.num_features), norm.num_features * 3 // 4))
    for name in ("weight", "bias"):
        setattr(norm, name, nn.Parameter(getattr(norm, name).detach()[index]))
    norm.running_mean, norm.running_var = norm.running_mean[index], norm.running_var[index]
    conv.weight = nn.Parameter(conv.weight.detach()[:, index])
    norm.num_features = conv.in_channels = len(index)
    insert_select(module, path, index)
    return Network(capture(network.architecture, module), module.eval())


def _reads(block, norm, conv):
    reader = getattr(block, conv, None)
    same = isinstance(reader, nn.Conv2d) and reader.in_channels == getattr(block, norm).num_features
    return same and reader.groups == 1 and reader.in_channels > 1


EDITS = (halve, depth, structured, gate)


def outputs(module, shape):
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return module(images)


def train_step(module, shape):
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    optimizer = make_optimizer(list(module.train().parameters()), Training(lr=1e-3))
    loss = F.cross_entropy(module(images), torch.arange(4))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    module.eval()
    assert loss.isfinite()


def parameters(network):
    return sum(parameter.numel() for parameter in network.module.parameters())


def edited(network, rounds, seed, folder):
    """Make every edit in a new order in each round; return how often each was made, for a network may refuse some."""
    chance, made, shape = random.Random(seed), Counter(), network.architecture.input
    torch.manual_seed(seed)
    for number in range(rounds):
        for edit in chance.sample(EDITS, len(EDITS)):
            try:
                small = edit(network, chance)
            except Error:
                continue
            made[edit.__name__] += 1
            stir(small)
            expected = outputs(small.module, shape)
            Checkpoint(small).save(folder / "edited.pt")
            again = read(folder / "edited.pt").network
            where = f"{edit.__name__} in round {number + 1} after {dict(made)}"
            assert torch.equal(outputs(again.module, shape), expected), where
            assert expected.isfinite().all(), where
            assert not torch.equal(expected[0], expected[1]), where
            assert parameters(again) < parameters(network), where
            train_step(again.module, shape)
            network = again
    return made


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("spec", "image_size", "rounds", "least"),
    [
        ("kdtool:resnet20", 32, 1, {"halve": 1, "depth": 1, "structured": 1, "gate": 1}),
        slow("kdtool:resnet20", 32, 2, {"halve": 2, "depth": 2, "structured": 2, "gate": 2}),
        slow("timm:test_vit2", 64, 1, {"halve": 1, "depth": 1, "structured": 1}),
        slow("torchvision:resnet18", 32, 4, {"halve": 4, "depth": 2, "structured": 4, "gate": 4}),
        slow("torchvision:mobilenet_v2", 32, 4, {"halve": 4, "depth": 3, "structured": 4}),
        slow("timm:vit_tiny_patch16_224", 32, 4, {"halve": 4, "depth": 4, "structured": 4}),
        slow("timm:convnext_atto", 32, 4, {"halve": 4, "depth": 3, "structured": 4}),
        slow("timm:swin_tiny_patch4_window7_224", 32, 4, {"halve": 3, "depth": 3, "structured": 3}),
        slow("torchvision:regnet_y_400mf", 32, 4, {"halve": 3, "depth": 4, "structured": 3}),
        slow("kdtool:densenet-bc-100-12", 8, 4, {"halve": 3, "depth": 4, "structured": 3, "gate": 4}),
    ],
)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_edits_upon_edits_are_rebuilt_to_the_last_bit(spec, image_size, rounds, least, seed, tmp_path):
    network = create(spec, options=NetworkOptions(classes=10, image_size=image_size), data=None)
    made = edited(network, rounds, seed, tmp_path)
    assert all(made[name] >= times for name, times in least.items()), made


WITHOUT_KDTOOL = """
import sys
import torch

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("kdtool"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refusing())
images, logits = torch.load("outputs.pth", weights_only=True)
assert torch.allclose(torch.load("module.pth", weights_only=False)(images), logits, atol=1e-5)
"""


@pytest.mark.slow  # a process of its own imports torch and timm
@pytest.mark.parametrize("spec", ["timm:resnet18", "torchvision:resnet18"])
def test_a_pickled_module_needs_the_library_of_its_network_alone(spec, tmp_path):
    chance = random.Random(0)
    network = depth(halve(create(spec, options=NetworkOptions(classes=3, image_size=32), data=None), chance), chance)
    module = structured(network, chance).module.eval()
    images = torch.randn(2, *network.architecture.input)
    torch.save(module, tmp_path / "module.pth")
    torch.save((images, module(images).detach()), tmp_path / "outputs.pth")
    subprocess.run([sys.executable, "-I", "-c", WITHOUT_KDTOOL], cwd=tmp_path, check=True)
