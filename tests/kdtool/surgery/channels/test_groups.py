"""The groups compared with those of Torch-Pruning, and with the known groups of small networks."""

import time

import pytest
import torch
import torch_pruning as tp
from torch import nn

from kdtool import Error
from kdtool.models.architecture import Architecture, Network
from kdtool.models.layers import CONV_LINEAR
from kdtool.models.modules import ChannelSelect
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery.channels.graph import Limits
from kdtool.surgery.channels.groups import groups, strengths


def network(module, size=6, channels=3):
    return Network(Architecture("test", "net", {"classes": 2, "in_channels": channels, "image_size": size}), module)


def network_of(spec, size=32):
    return create(spec, options=NetworkOptions(classes=10, image_size=size), data=None)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1, bias=False)
        self.inside = nn.Conv2d(4, 6, 1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.back = nn.Conv2d(6, 4, 1, bias=False)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.back(self.norm(self.inside(x)).relu())).mean((2, 3)))


def test_strength_is_the_norm_of_all_that_goes_with_a_channel():
    module = Residual()
    importance = strengths(network(module))
    inside, back = module.inside.weight.detach().flatten(1), module.back.weight.detach().flatten(1)
    expected = (inside.square().sum(1) + back.square().sum(0) + module.norm.weight.detach().square()).sqrt()
    torch.testing.assert_close(importance["inside"], expected)
    stem, head = module.stem.weight.detach().flatten(1), module.head.weight.detach()
    around = stem.square().sum(1) + inside.square().sum(0) + back.square().sum(1) + head.square().sum(0)
    torch.testing.assert_close(importance["stem"], around.sqrt())


def test_layers_that_are_added_have_the_same_strengths_and_the_head_has_none():
    importance = strengths(network(Residual()))
    assert torch.equal(importance["stem"], importance["back"])
    assert set(importance) == {"stem", "inside", "back"}


@pytest.mark.parametrize("spec", ["torchvision:resnet18", "torchvision:squeezenet1_1", "kdtool:lenet-5"])
def test_groups_are_those_of_torch_pruning(spec):
    net = network_of(spec)
    gathered = {
        group.members[0].path: {
            (member.path, role, tuple(member.channels.tolist()))
            for member in group.members
            for role in (("outputs", "inputs") if member.role == "both" else (member.role,))
            if role in ("outputs", "inputs")
        }
        for group in groups(net)
    }
    graph = tp.DependencyGraph().build_dependency(net.module, torch.rand(1, *net.architecture.input), verbose=False)
    paths = {module: path for path, module in net.module.named_modules()}
    expected = {}
    for group in graph.get_all_groups():
        expected[paths[group[0].dep.target.module]] = {
            (
                paths[dep.target.module],
                "outputs" if graph.is_out_channel_pruning_fn(dep.handler) else "inputs",
                tuple(sorted(indices)),
            )
            for dep, indices in group
            if isinstance(dep.target.module, CONV_LINEAR)
        }
    assert gathered == {root: members for root, members in expected.items() if root in gathered}
    assert len(expected) - len(gathered) == 1  # the group of the classifier


def test_channels_are_followed_through_a_selection():
    class Selecting(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 7, 1)
            self.select = ChannelSelect([4, 0, 2])
            self.head = nn.Linear(7, 2)

        def forward(self, x):
            return self.head(self.second(self.select(self.first(x))).mean((2, 3)))

    first = next(group for group in groups(network(Selecting())) if group.members[0].path == "first")
    inputs = next(member for member in first.members if (member.path, member.role) == ("second", "inputs"))
    assert list(zip(inputs.channels.tolist(), inputs.roots.tolist(), strict=True)) == [(0, 4), (1, 0), (2, 2)]


def test_gradients_are_there_for_importances_that_need_them():
    net = network(Residual())
    net.module(torch.rand(1, 3, 6, 6)).sum().backward()
    group = next(group for group in groups(net) if group.members[0].path == "inside")
    layer = group.graph[0].dep.target.module
    assert layer is not net.module.inside
    assert torch.equal(layer.weight.grad, net.module.inside.weight.grad)


def test_the_network_stays_as_it_is():
    net = network(Residual())
    net.module.train()
    net.module.stem.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.module.state_dict().items()}
    groups(net)
    assert net.module.training
    assert not net.module.stem.weight.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.module.state_dict().items())


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"gigabytes": -1}])
def test_limits_end_it(limits):
    with pytest.raises(Error, match="takes more than"):
        groups(network_of("kdtool:resnet20"), Limits(**limits))


def test_the_time_that_others_take_does_not_count():
    limits = Limits(seconds=0.2)
    time.sleep(0.3)
    limits.check()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    with pytest.raises(Error, match=r"takes more than 0.2 seconds of computing"):
        limits.check()


@pytest.mark.parametrize(
    ("spec", "image_size"),
    [("timm:hiera_tiny_224", 64), pytest.param("timm:sequencer2d_s", 64, marks=pytest.mark.slow)],
)
def test_rows_that_are_put_together_and_expansions_that_repeat_nothing_have_no_channels(spec, image_size):
    # The library would divide by zero when it counts the channels there.
    assert groups(network_of(spec, image_size))


def test_a_network_that_does_not_run_is_refused():
    with pytest.raises(Error, match="no dependency graph can be built"):
        groups(network(Residual(), channels=5))
    assert strengths(network(Residual(), channels=5)) == {}


def test_a_network_without_a_graph_has_no_strengths():
    class Blind(Residual):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    assert strengths(network(Blind())) == {}
    assert groups(network(Blind())) == []


def test_a_deep_network_is_followed_to_its_end():
    # The library stops after 500 steps and then takes each number of a flattened map for a channel.
    layers = [layer for _ in range(300) for layer in (nn.Conv2d(4, 4, 1), nn.ReLU())]
    module = nn.Sequential(nn.Conv2d(3, 4, 1), *layers, nn.Flatten(), nn.Linear(16, 2))
    last = next(group for group in groups(network(module, size=2)) if group.members[0].path == "599")
    inputs = next(member for member in last.members if member.path == "602")
    assert inputs.roots.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
