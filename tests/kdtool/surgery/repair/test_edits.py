"""Networks of several families come closer to what they were, after every edit that inherits weights."""

import pytest
import torch

from kdtool import Budget
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery import halve_widths, reach_budget, remove_channels
from kdtool.surgery.repair.network import repair_network
from kdtool.surgery.slicing.inherited import composed


def images(count, shape):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def real(spec, size=32):
    return create(spec, options=NetworkOptions(classes=10, image_size=size), data=None)


def by_size(group):
    return torch.arange(len(group[0].idxs)) * 0.618 % 1


def cut_twice(net):
    """Cut a network that was cut, and say of which channels of the first one each layer consists."""
    once = halve_widths(net, ratio=0.75, init="inherit")
    return composed(remove_channels(once, ratio=0.3, importance=by_size, round_to=1).network, once)


EDITS = {
    "removed": lambda net: remove_channels(net, ratio=0.3, importance=by_size, round_to=1).network,
    "halved": lambda net: halve_widths(net, ratio=0.75, init="inherit"),
    "shallower": lambda net: reach_budget(net, Budget.parse("0.6x"), depth_share=1, init="inherit"),
    "twice": cut_twice,
    "both": lambda net: reach_budget(net, Budget.parse("0.4x"), init="inherit"),
}


@pytest.mark.parametrize("edit", ["removed", "halved", "twice"])
def test_a_chain_comes_closer_after_edits_of_its_channels(edit):
    net = real("kdtool:lenet-5")
    small = EDITS[edit](net)
    done = repair_network(small, net, images(48, net.architecture.input), "least-squares")
    assert not done.left
    assert done.errors[1] < 0.5 * done.errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_residual_networks_come_closer_after_every_edit(edit):
    net = real("kdtool:resnet20", 16)
    small = EDITS[edit](net)
    done = repair_network(small, net, images(48, (3, 16, 16)), "least-squares")
    assert not done.left
    assert done.errors[1] < 0.5 * done.errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["torchvision:mobilenet_v2", "torchvision:densenet121", "timm:convnext_atto"])
def test_other_families_come_closer(spec):
    net = real(spec)
    done = repair_network(EDITS["halved"](net), net, images(64, (3, 32, 32)), "least-squares")
    assert done.errors[1] < done.errors[0]


def test_the_channels_of_a_network_that_was_cut_twice_are_those_of_the_first():
    net = real("kdtool:lenet-5")
    small = cut_twice(net)
    for path, kept in small.kept.items():
        bias = net.module.get_submodule(path).bias
        assert torch.equal(small.module.get_submodule(path).bias, bias[kept])
    assert {len(kept) for kept in small.kept.values()} != {0}
