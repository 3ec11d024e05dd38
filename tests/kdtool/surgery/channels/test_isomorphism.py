"""Kinds of groups, compared with the tags that torch_pruning gives to groups for isomorphic pruning."""

import pytest
import torch
import torch_pruning as tp
from torch import nn

from kdtool.models.architecture import Architecture, Network
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery.channels.groups import groups
from kdtool.surgery.channels.importance import begins_with
from kdtool.surgery.channels.isomorphism import topology


def tags(module, shape):
    """Return the text by which torch_pruning 1.6 compares groups, by the paths of the layers that output channels."""
    graph = tp.DependencyGraph().build_dependency(module, torch.zeros(1, *shape))
    names = {layer: name for name, layer in module.named_modules()}
    found = {}
    for group in graph.get_all_groups(root_module_types=[tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR]):
        sides = [(dep, graph.is_out_channel_pruning_fn(dep.handler)) for dep, _ in group]
        tag = tuple((type(dep.source.module), type(dep.target.module), out) for dep, out in sides)
        found.update((names[dep.target.module], tag) for dep, out in sides if out and dep.target.module in names)
    return found


def topologies(network):
    return {begins_with(group.graph): topology(group.graph) for group in groups(network)}


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [
        # Inside of blocks; stem and stage 1; stages 2 and 3, with a convolution as shortcut; stage 4, read by the head.
        ("torchvision:resnet18", 4),
        ("torchvision:mobilenet_v2", 6),
        # The residual stream, the neurons of MLPs, and queries, keys and values.
        ("timm:test_vit", 3),
        ("timm:test_convnext", 5),
    ],
)
def test_groups_are_told_apart_as_by_torch_pruning(spec, kinds):
    network = create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=32), data=None, own={})
    ours, theirs = topologies(network), tags(network.module, (3, 32, 32))
    assert len(set(ours.values())) == kinds
    for first in ours:
        for second in ours:
            assert (ours[first] == ours[second]) == (theirs[first] == theirs[second]), (first, second)


class Chain(nn.Module):
    """Convolutions, each with a residual branch of its own kind behind it."""

    def __init__(self, *branches, flipped=()):
        super().__init__()
        self.stems = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in branches)
        self.ends = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in branches)
        self.branches = nn.ModuleList(branches)
        self.flipped = flipped
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        for number, (stem, branch, end) in enumerate(zip(self.stems, self.branches, self.ends, strict=True)):
            x = stem(x)
            x = end(branch(x) + x if number in self.flipped else x + branch(x))
        return self.head(x).mean((2, 3))


def kinds_of(module):
    architecture = Architecture("test", "net", {"classes": 2, "in_channels": 4, "image_size": 4})
    found = {
        member.path: topology(group.graph)
        for group in groups(Network(architecture, module))
        for member in group.members
        if member.role == "outputs"
    }
    return [found[f"stems.{number}"] for number in range(len(module.stems))]


def conv(**options):
    return nn.Conv2d(4, 4, 1, **options)


def test_the_order_of_an_addition_does_not_count():
    first, second = kinds_of(Chain(conv(), conv(), flipped=(1,)))
    assert first == second


def test_depthwise_and_normalised_branches_are_other_kinds():
    branches = conv(), conv(groups=4), nn.Sequential(conv(), nn.BatchNorm2d(4)), nn.Sequential(conv(), nn.ReLU())
    assert len(set(kinds_of(Chain(*branches)))) == 4
