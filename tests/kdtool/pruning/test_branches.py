"""Parallel branches by hand, and those of a network of timm."""

import pytest
import torch
from torch import nn

from kdtool.models.architecture import Architecture, Network
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.pruning.branches import say_branches, summed_sparsity
from kdtool.training.zeros import prunable, sparsity


class Branches(nn.Module):
    """Two convolutions that become one, as in MobileOne."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
        self.both = None

    def forward(self, x):
        return self.both(x) if self.both is not None else self.one(x) + self.other(x)

    def reparameterize(self):
        self.both = nn.Conv2d(2, 2, 1, bias=False)
        self.both.weight.data.copy_(self.one.weight + self.other.weight)
        del self.one, self.other


def network():
    module = nn.Sequential(Branches(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module[0].one.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(2, 2, 1, 1))
    module[0].other.weight.data.copy_(torch.tensor([[0.0, 1.0], [0.0, 1.0]]).view(2, 2, 1, 1))
    return Network(Architecture("test", "net", {"classes": 2, "in_channels": 2, "image_size": 4}), module)


def test_the_zeros_of_branches_and_of_their_sum(caplog):
    net = network()
    assert sparsity(net.module) == 0.5
    assert summed_sparsity(net.module) == 0.25
    assert list(prunable(net.module)) == ["0.one.weight", "0.other.weight"]
    say_branches(net)
    assert "test:net: 50.0 % of its weights are zero as it is; if its parallel branches are added up" in caplog.text
    assert "25.0 % of the weights of the sums are" in caplog.text


def test_a_network_without_branches_has_no_sum(caplog):
    net = Network(network().architecture, nn.Sequential(nn.Flatten(), nn.Linear(32, 2)))
    assert summed_sparsity(net.module) is None
    say_branches(net)
    assert caplog.text == ""


def test_the_branches_of_mobileone():
    net = create("timm:mobileone_s0", options=NetworkOptions(classes=4, image_size=32), data=None)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in prunable(net.module):
            weight = net.module.get_parameter(name)
            weight.mul_(torch.rand(weight.shape, generator=generator) < 0.5)
    # Four branches of random zeros: one in sixteen is zero in all of them.
    assert sparsity(net.module) == pytest.approx(0.5, abs=0.01)
    assert summed_sparsity(net.module) < 0.2
