"""What is said of the widths that a refiner makes."""

import pytest

from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.plugins.registry import make
from kdtool.surgery.refiner import refined

NOTE = (
    "halve: 10 of 10 convolutions have numbers of channels that are no multiples of 4, which onnxruntime computes "
    "slowly on many processors; --round-to 8 avoids them"
)


@pytest.fixture(scope="module")
def network():
    """A network whose convolutions have 32, 64, 128 and 256 channels."""
    return create("kdtool:resnet8x4", options=NetworkOptions(classes=10, image_size=8), data=None, seed=0)


def test_widths_that_are_slow_are_told_with_what_avoids_them(network, capsys):
    refined(make("refiners", "halve", ratio=0.58), network, 0)  # 19, 38, 75 and 149 channels
    assert NOTE in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("halve", {"ratio": 0.58, "round_to": 8}),
        ("halve", {}),  # 16, 32, 64 and 128 channels
        ("halve", {"times": 4}),  # 2, 4, 8 and 16: too narrow to be otherwise
        ("like", {"arch": "kdtool:lenet-5"}),  # its user chose the network, and no option would help
    ],
)
def test_others_are_not(network, capsys, method, options):
    refined(make("refiners", method, **options), network, 0)
    assert "multiples" not in capsys.readouterr().err
