"""The widths after halving, and which channels keep their weights."""

import pytest

import kdtool
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create


def network():
    return create("kdtool:lenet-5", options=NetworkOptions(), data=None)


def widths(net):
    return [layer.out_channels for layer in net.module.modules() if hasattr(layer, "out_channels")]


def test_every_width_is_halved_as_often_as_asked():
    wide = widths(network())
    assert wide == [6, 16, 120]
    assert widths(kdtool.make("refiners", "halve").refine(network())) == [3, 8, 60]
    assert widths(kdtool.make("refiners", "halve", times=2).refine(network())) == [2, 4, 30]


def test_widths_round_up_to_a_multiple():
    refiner = kdtool.make("refiners", "halve", ratio=0.25, round_to=4)
    assert widths(refiner.refine(network())) == [4, 4, 32]


def test_inherited_weights_are_those_of_the_channels_that_stay():
    net = network()
    small = kdtool.make("refiners", "halve", init="inherit").refine(net)
    old, new = next(net.module.parameters()), next(small.module.parameters())
    assert len(new) == 3
    assert all(any(kernel.equal(candidate) for candidate in old) for kernel in new)


def test_a_scope_that_there_is_not_is_refused():
    with pytest.raises(kdtool.UsageError, match="scope"):
        kdtool.make("refiners", "halve", scope="outer")
