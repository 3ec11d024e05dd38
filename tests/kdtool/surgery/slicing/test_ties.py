"""Parameters that layers share stay shared when a network is cut, or the cut is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from kdtool import Error, Source
from kdtool.models import architecture
from kdtool.models.architecture import Architecture, Network, build
from kdtool.surgery import filters, halve_widths, over_filters, remove_channels
from kdtool.surgery.channels.selection import Costs
from kdtool.surgery.slicing.tensors import slice_tensors
from kdtool.surgery.tracing.flow import Flow


class Tied(nn.Module):
    """A residual network whose two blocks share a convolution and the gain of a norm."""

    def __init__(self, classes, channels):
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, padding=1)
        self.first, self.second = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.first_norm, self.second_norm = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.second.weight, self.second_norm.weight = self.first.weight, self.first_norm.weight
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + F.relu(self.first_norm(self.first(x)))
        x = x + F.relu(self.second_norm(self.second(x)))
        return self.head(x.mean((2, 3)))


class Normalised(nn.Sequential):
    """A network with a layer that computes its weight."""

    def __init__(self, classes, channels):
        layers = parametrizations.weight_norm(nn.Conv2d(channels, 8, 3)), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


class Networks(Source):
    """Build a network of this file."""

    def networks(self):
        return ["Tied", "Normalised"]

    def build(self, network, *, classes, in_channels, image_size, pretrained=False):
        return {"Tied": Tied, "Normalised": Normalised}[network](classes, in_channels).eval()


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(architecture, "make", lambda kind, name: Networks())

    def made(name):
        torch.manual_seed(0)
        options = {"classes": 3, "in_channels": 1, "image_size": 8}
        return Network(Architecture("test", name, options), Networks().build(name, **options))

    return made


def check(small, before):
    module = small.module
    assert module.second.weight is module.first.weight
    assert module.second_norm.weight is module.first_norm.weight
    assert module.first.weight.shape[0] < before
    images = torch.rand(2, 1, 8, 8)
    rebuilt = build(small.architecture, small.module.state_dict())
    assert rebuilt.second.weight is rebuilt.first.weight
    assert torch.equal(rebuilt(images), module(images))


@pytest.mark.parametrize("init", ["fresh", "inherit"])
def test_halving_keeps_them_shared(network, init):
    check(halve_widths(network("Tied"), init=init), 8)


def by_l1(group):
    return over_filters(group, lambda path, layer: filters(layer).abs().sum(1))


def test_removing_channels_keeps_them_shared_and_says_how_much_went(network):
    tied = network("Tied")
    removal = remove_channels(tied, ratio=0.4, importance=by_l1, round_to=1)
    check(removal.network, 8)
    old, new = (sum(tensor.numel() for tensor in each.module.parameters()) for each in (tied, removal.network))
    assert removal.removed == pytest.approx(1 - new / old, abs=1e-6)


def test_a_shared_parameter_is_removed_once(network):
    module = network("Tied").module
    costs = Costs(module, (1, 8, 8), "params", whole=1)
    sizes = [costs._products[path] for path in ("first", "second")]
    assert sizes == [8 * 8 * 9, 0]


def test_other_channels_of_one_parameter_are_refused(network):
    module = network("Tied").module
    every, even = torch.arange(8), torch.arange(0, 8, 2)
    flow = Flow(inputs={"first": every, "second": every}, outputs={"first": even, "second": even + 1})
    with pytest.raises(
        Error, match=r"second\.weight: is the same tensor as first\.weight, from which other channels go"
    ):
        slice_tensors(module, flow, lambda path, dim, size: torch.arange(size))


@pytest.mark.parametrize("init", ["fresh", "inherit"])
def test_a_layer_that_computes_its_weight_is_not_cut(network, init):
    with pytest.raises(Error, match="0: its weight is computed by WeightNorm and cannot be cut"):
        halve_widths(network("Normalised"), init=init)
    with pytest.raises(Error, match="0: its weight is computed by WeightNorm and cannot be cut"):
        remove_channels(network("Normalised"), ratio=0.4, importance=by_l1, round_to=1)
