import kdtool
from kdtool.settings import NetworkOptions
from kdtool.sources import create


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


def test_inherited_weights_are_every_second_one():
    net = network()
    small = kdtool.make("refiners", "halve", init="inherit").refine(net)
    old, new = next(net.module.parameters()), next(small.module.parameters())
    assert new.equal(old[::2])
