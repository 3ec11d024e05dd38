"""The parameter counts of the catalogue's networks, and what can be done with them."""

import pytest
import torch

from kdtool import Error, UsageError, make
from kdtool.models.architecture import build as rebuild
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery import drop_blocks, halve_widths
from kdtool.surgery.depth.stages import stages_of

SOURCE = make("teachers", "kdtool")


def meta(name, classes, in_channels=3, image_size=32):
    with torch.device("meta"):
        return SOURCE.build(name, classes=classes, in_channels=in_channels, image_size=image_size)


def network(name):
    return create(f"kdtool:{name}", options=NetworkOptions(classes=10, image_size=16), data=None)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def resnet(blocks, classes, widths=(16, 16, 32, 64), *, projects=False):
    first, *stages = widths
    total = 27 * first + 2 * first
    for before, width in zip(widths, stages, strict=False):
        total += 9 * before * width + (2 * blocks - 1) * 9 * width**2 + 2 * blocks * 2 * width
        # A 1x1 convolution and its norm if the shape changes; option A pads with zeros instead, without parameters.
        total += (before * width + 2 * width) * (projects and before != width)
    return total + (stages[-1] + 1) * classes


def wide(blocks, factor, classes):
    total, before = 27 * 16, 16
    for number, width in enumerate((16 * factor, 32 * factor, 64 * factor)):
        # The first norm of the first block has the input's channels.
        total += 9 * before * width + (2 * blocks - 1) * 9 * width**2 + 2 * before + (2 * blocks - 1) * 2 * width
        total += before * width if number or before != width else 0
        before = width
    return total + 2 * before + (before + 1) * classes


def vgg(convolutions, classes):
    total, before = 0, 3
    for width in (64, 128, 256, 512, 512):
        # A bias, and the gain and shift of the norm.
        total += 9 * before * width + (convolutions - 1) * 9 * width**2 + convolutions * 3 * width
        before = width
    return total + 513 * classes


def resnet9(classes):
    # Gain and shift of each norm; a residual block has two convolutions that keep its width.
    convolutions = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512), (512, 512), (512, 512)]
    return sum(9 * inputs * outputs + 2 * outputs for inputs, outputs in convolutions) + 513 * classes


def airbench(classes, width=64):
    wide = 4 * width
    convolutions = [(24, width), (width, width), (width, wide), (wide, wide), (wide, wide), (wide, wide)]
    # The first convolution has 2x2 weights and a bias.
    return 24 * 13 + sum(9 * inputs * outputs + 2 * outputs for inputs, outputs in convolutions) + (wide + 1) * classes


X4 = {"widths": (32, 64, 128, 256), "projects": True}
B = {"projects": True}
# Parameters with 10 and with 100 classes, the published millions and their number of classes, and the sum by hand.
COUNTS = [
    ("resnet20", 269_722, 275_572, "0.27", 10, lambda classes: resnet(3, classes)),
    ("resnet32", 464_154, 470_004, "0.46", 10, lambda classes: resnet(5, classes)),
    ("resnet44", 658_586, 664_436, "0.66", 10, lambda classes: resnet(7, classes)),
    ("resnet56", 853_018, 858_868, "0.85", 10, lambda classes: resnet(9, classes)),
    ("resnet110", 1_727_962, 1_733_812, "1.7", 10, lambda classes: resnet(18, classes)),
    ("resnet20b", 272_474, 278_324, "0.28", 100, lambda classes: resnet(3, classes, **B)),
    ("resnet56b", 855_770, 861_620, "0.86", 100, lambda classes: resnet(9, classes, **B)),
    ("resnet8x4", 1_210_410, 1_233_540, "1.23", 100, lambda classes: resnet(1, classes, **X4)),
    ("resnet32x4", 7_410_730, 7_433_860, "7.43", 100, lambda classes: resnet(5, classes, **X4)),
    ("wrn-16-1", 175_066, 180_916, "0.2", 10, lambda classes: wide(2, 1, classes)),
    ("wrn-16-2", 691_674, 703_284, "0.7", 10, lambda classes: wide(2, 2, classes)),
    ("wrn-40-1", 563_930, 569_780, "0.6", 10, lambda classes: wide(6, 1, classes)),
    ("wrn-40-2", 2_243_546, 2_255_156, "2.2", 10, lambda classes: wide(6, 2, classes)),
    ("vgg8", 3_918_858, 3_965_028, "3.97", 100, lambda classes: vgg(1, classes)),
    # Its author gives no number of parameters: only the sum by hand is independent.
    ("resnet9", 6_573_130, 6_619_300, "6.57", 10, resnet9),
    # 1.97 M in the paper, without the scales of norms and with a classifier that has no bias.
    ("airbench94", 1_972_802, 1_995_932, "1.97", 10, airbench),
    ("airbench94-16", 127_106, 132_956, "0.1", 10, lambda classes: airbench(classes, width=16)),
    ("vgg13", 9_416_010, 9_462_180, "9.46", 100, lambda classes: vgg(2, classes)),
]


@pytest.mark.parametrize(("name", "ten", "hundred", "published", "classes", "by_hand"), COUNTS)
def test_parameters_as_published(name, ten, hundred, published, classes, by_hand):
    assert (size(meta(name, 10)), size(meta(name, 100))) == (ten, hundred) == (by_hand(10), by_hand(100))
    decimals = len(published.partition(".")[2])
    assert f"{(ten if classes == 10 else hundred) / 1e6:.{decimals}f}" == published


@pytest.mark.parametrize(
    ("name", "stages", "fewer"),
    [
        ("resnet20", [3, 3, 3], resnet(1, 10)),
        # Half of ResNet-110's blocks are ResNet-56.
        pytest.param("resnet110", [18, 18, 18], 853_018, marks=pytest.mark.slow),
        pytest.param("resnet8x4", None, None, marks=pytest.mark.slow),
        pytest.param("resnet32x4", [5, 5, 5], resnet(2, 10, **X4), marks=pytest.mark.slow),
        ("wrn-16-2", [2, 2, 2], wide(1, 2, 10)),
        pytest.param("wrn-40-1", [6, 6, 6], wide(3, 1, 10), marks=pytest.mark.slow),
        ("vgg8", None, None),
        pytest.param("resnet9", None, None, marks=pytest.mark.slow),
        pytest.param("airbench94", None, None, marks=pytest.mark.slow),
        pytest.param("vgg13", None, None, marks=pytest.mark.slow),
    ],
)
def test_can_be_made_smaller_and_built_again(name, stages, fewer):
    net = network(name)
    small = halve_widths(net)
    assert 0.25 < size(small.module) / size(net.module) < 0.26
    assert halve_widths(net, times=4).module.fc.in_features == net.module.fc.in_features // 16
    if stages is None:
        with pytest.raises(Error, match=f"kdtool:{name}: has no stages"):
            drop_blocks(net)
    else:
        assert [len(stage.blocks) for stage in stages_of(net)] == stages
        assert size(drop_blocks(net).module) == fewer
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(rebuild(small.architecture, small.module.state_dict())(images), small.module(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "resnet8x4", "wrn-16-2", "vgg8"])
def test_is_exported(name, tmp_path):
    facts = make("exporters", "onnx").export(halve_widths(network(name)), tmp_path / "small.onnx", metadata={})
    assert facts["parity"]["same_argmax"]


# The same code as their smaller relatives, with more blocks.
DEEP = ("resnet32", "resnet44", "resnet56", "resnet110", "resnet56b", "resnet32x4", "wrn-40-1", "wrn-40-2")


@pytest.mark.parametrize(
    "name", [pytest.param(row[0], marks=pytest.mark.slow) if row[0] in DEEP else row[0] for row in COUNTS]
)
def test_stages_can_be_watched_by_name(name):
    module = meta(name, 10)
    stages = [part for part, _ in module.named_children() if part.startswith("layer")]
    maps = {}
    for stage in stages:
        module.get_submodule(stage).register_forward_hook(lambda _, __, y, stage=stage: maps.update({stage: y.shape}))
    module(torch.zeros(2, 3, 32, 32, device="meta"))
    sides = {"vgg8": [32, 16, 8, 4, 4], "vgg13": [32, 16, 8, 4, 4], "resnet9": [32, 16, 8, 4]}
    sides = sides.get(name, [32, 16, 8]) if "airbench94" not in name else [15, 7, 3]
    assert [shape[2:] for shape in maps.values()] == [(side, side) for side in sides]
    assert list(maps) == [f"layer{number}" for number in range(1, len(sides) + 1)]


@pytest.mark.parametrize(
    ("name", "options", "largest", "too_large"),
    [
        # 2^28 parameters are 300 weights for each of almost 895,000 pixels.
        ("lenet-300-100", {"image_size": 945}, {}, {"image_size": 947}),
        # At 32x32x3 pixels there are 575 w^2 + 77 w + 10 parameters.
        ("conv4-fc2", {"image_size": 32}, {"width": 683}, {"width": 684}),
    ],
)
def test_a_network_that_would_fill_the_memory_is_refused_before_it_is_built(name, options, largest, too_large):
    channels = SOURCE.defaults(name)["in_channels"]

    def build(image_size, **options):
        with torch.device("meta"):
            make("teachers", "kdtool", **options).build(name, classes=10, in_channels=channels, image_size=image_size)

    build(**options, **largest)
    with pytest.raises(UsageError, match=rf"{name}: would have [\d,]+ parameters .* a smaller --image-size") as raised:
        build(**{**options, **too_large})
    assert ("--width" in str(raised.value)) == ("width" in too_large)
