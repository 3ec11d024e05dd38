"""Which gates stand on a residual stream: channels that several layers add to."""

import pytest

from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery.gates import gate_channels


def streams(spec, size):
    net = create(spec, options=NetworkOptions(classes=10, image_size=size), data=None)
    places = gate_channels(net).module.places
    numbers = {int(number) for number in places.groups[places.in_stream]}
    assert numbers == set(places.streams)
    return {places.group_names[number] for number in numbers}, set(places.group_names)


@pytest.mark.parametrize(
    ("spec", "size", "expected"),
    [
        # Its shortcuts pad with zeros: the 16 channels of the first stage go through all stages.
        ("kdtool:resnet20", 16, {"layer1.2.conv2"}),
        # A shortcut with a layer of its own begins another stream.
        ("kdtool:wrn-16-2", 16, {"layer1.1.conv2", "layer2.1.conv2", "layer3.1.conv2"}),
        pytest.param(
            "torchvision:mobilenet_v2",
            32,
            {f"features.{block}.conv.2" for block in (3, 6, 10, 13, 16)},
            marks=pytest.mark.slow,
        ),
        ("kdtool:lenet-5", 28, set()),
        # Squeeze-and-excitation multiplies the outputs of two layers, and its blocks are not repeated.
        ("timm:test_efficientnet", 32, set()),
    ],
)
def test_streams(spec, size, expected):
    found, every = streams(spec, size)
    assert found == expected
    assert found < every
