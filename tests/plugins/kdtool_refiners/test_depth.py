"""How many blocks stay in each stage, and which weights they have."""

import pytest

import kdtool
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create


def network():
    return create("kdtool:resnet20", options=NetworkOptions(classes=10, image_size=8), data=None)


def blocks(net):
    return [len(net.module.get_submodule(f"layer{number}")) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, [1, 1, 1]), ({"keep": (1, 2, 3)}, [1, 2, 3]), ({"blocks": 5}, [1, 2, 2]), ({"times": 3 * 10**9}, [1, 1, 1])],
)
def test_blocks_are_left_out(options, expected):
    assert blocks(kdtool.make("refiners", "depth", **options).refine(network())) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": (1, 1, 1), "blocks": 3}, "--keep and --blocks both"),
        ({"keep": (1, 1, 1), "times": 2}, "--keep and --times both"),
        ({"blocks": 3, "times": 2}, "--blocks and --times both"),
    ],
)
def test_two_ways_to_say_how_many_are_refused(options, message):
    with pytest.raises(kdtool.UsageError, match=f"{message} set the number of blocks; give one"):
        kdtool.make("refiners", "depth", **options).refine(network())


def test_inherited_blocks_are_the_old_ones():
    net = network()
    small = kdtool.make("refiners", "depth", init="inherit").refine(net)
    assert small.module.layer3[0].conv1.weight.equal(net.module.layer3[0].conv1.weight)
