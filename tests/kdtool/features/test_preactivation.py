"""The maps before the last activation: however it is written, in eval and in train mode, and their gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdtool.features.preactivation import before_activation
from kdtool.features.segments import Segment
from kdtool.features.taps import tap
from kdtool.models.architecture import Architecture, Network
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create

ACTIVATE = {
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "function": F.relu,
    "function in place": lambda x: F.relu(x, inplace=True),
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "of torch": torch.relu,
    "in a chain": nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)),
}


class Block(nn.Module):
    """A residual block that calls one activation twice."""

    def __init__(self, activate):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        nn.init.constant_(self.second.bias, -0.5)
        self.activate = activate

    def before(self, x):
        y = self.second(self.first(x).clamp(min=0))
        return y + x

    def forward(self, x):
        y = self.second(self.activate(self.first(x)))
        y += x
        return self.activate(y)


class Net(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.stage = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, x):
        return self.head(self.stage(self.stem(x)))


def network(*layers):
    torch.manual_seed(0)
    shape = {"classes": 2, "in_channels": 3, "image_size": 8}
    return Network(Architecture("sample", "net", shape), Net(*layers))


def watched(net, found):
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    logits, maps = Segment().run(net.module, images, [found])
    torch.testing.assert_close(logits, net.module(images), rtol=0, atol=0)
    return images, maps[found.name]


@pytest.mark.parametrize("way", ACTIVATE)
def test_it_is_found_however_it_is_written(way):
    net = network(Block(ACTIVATE[way]), Block(ACTIVATE[way]))
    found = before_activation(net, tap(net, "stage"))
    assert found.before
    net.module.double()
    assert (found.shape, found.layout) == ((4, 8, 8), "nchw")
    for mode in (False, True):
        net.module.train(mode)
        images, before = watched(net, found)
        expected = net.module.stage[1].before(net.module.stage[0](net.module.stem(images)))
        torch.testing.assert_close(before, expected, rtol=1e-12, atol=1e-12)
        assert before.min() < 0
        weight = net.module.stem.weight
        gradients = [torch.autograd.grad(maps.square().sum(), weight)[0] for maps in (before, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)),
        (nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)),
        (nn.ReLU(inplace=True), nn.AvgPool2d(2)),
    ],
)
def test_a_layer_that_ends_with_none_stays(layers):
    net = network(*layers)
    stage = tap(net, "stage")
    assert before_activation(net, stage) == stage


def test_an_output_that_is_changed_later_is_none():
    class Added(nn.Module):
        def forward(self, x):
            y = F.relu(x)
            y += 1
            return y

    net = network(nn.Conv2d(4, 4, 1), Added())
    assert not before_activation(net, tap(net, "stage")).before


def test_a_dropout_behind_it_changes_nothing():
    net = network(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.5))
    found = before_activation(net, tap(net, "stage"))
    net.module.double().train()
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    _, maps = Segment().run(net.module, images, [found])
    torch.testing.assert_close(maps[found.name], net.module.stage[0](net.module.stem(images)))


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ("torchvision:resnet18", {"layer1": "layer1.1", "layer4": "layer4.1"}),
        ("timm:resnet18", {"layer2": "layer2.1.act2"}),
        ("kdtool:resnet20", {"layer3": "layer3.2.relu2"}),
        ("kdtool:wrn-16-1", {"layer1": None, "relu": "relu"}),
        ("torchvision:mobilenet_v2", {"features.3": None, "features.18": "features.18.2"}),
    ],
)
def test_known_networks(spec, paths):
    net = create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=32), data=None)
    for path, inner in paths.items():
        found = before_activation(net, tap(net, path))
        assert (found.path, found.before) == (inner or path, inner is not None)
