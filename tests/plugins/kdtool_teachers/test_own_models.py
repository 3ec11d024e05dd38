"""The networks of the papers: parameters, layers, other inputs and refusals."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdtool import UsageError, make
from kdtool_teachers.catalogue import NETWORKS

SOURCE = make("teachers", "kdtool")


def build(name, classes=10, in_channels=None, image_size=None, **options):
    source = make("teachers", "kdtool", **options)
    made_for = source.defaults(name)
    return source.build(
        name,
        classes=classes,
        in_channels=in_channels or made_for["in_channels"],
        image_size=image_size or made_for["image_size"],
    )


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lenet-300-100", 266_610),
        ("lenet-5", 61_706),
        ("densenet-bc-100-12", 769_162),
        ("conv4-fc2", 1_017_544),
        ("resnet10-concat-head", 5_170_762),
        ("resnet14-concat-head", 11_072_074),
        ("resnet20-concat-head", 12_622_154),
        ("resnet26-concat-head", 17_712_202),
        ("resnet34-concat-head", 21_549_642),
    ],
)
def test_parameters_of_the_papers(name, parameters):
    with torch.device("meta"):
        assert size(build(name)) == parameters


@pytest.mark.parametrize(("width", "millions"), [(19, 0.2), (42, 1.0), (67, 2.6)])
def test_width_of_conv4_fc2(width, millions):
    with torch.device("meta"):
        parameters = size(build("conv4-fc2", width=width))
    assert parameters == 575 * width**2 + 77 * width + 10
    assert round(parameters / 1e6, 1) == millions


def test_densenet_has_the_macs_of_its_paper():
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        build("densenet-bc-100-12")(torch.zeros(1, 3, 32, 32))
    # Convolutions and the classifier; the paper's 296 M counts norms and activations as well.
    assert counter.get_total_flops() // 2 == 287_929_692


def test_densenet_is_laid_out_like_torchvisions():
    with torch.device("meta"):
        features = build("densenet-bc-100-12").features
    blocks = ["conv0", "denseblock1", "transition1", "denseblock2", "transition2", "denseblock3", "norm5"]
    assert [name for name, _ in features.named_children()] == blocks
    assert [name for name, _ in features.denseblock1.denselayer16.named_children()] == [
        "norm1",
        "relu1",
        "conv1",
        "norm2",
        "relu2",
        "conv2",
    ]


def test_lenet5_averages_nothing_at_the_size_of_its_paper():
    module = build("lenet-5")
    assert module[:9](torch.zeros(1, 1, 28, 28)).shape == (1, 120, 1, 1)


def test_concat_head_takes_maximum_and_mean():
    pool = build("resnet10-concat-head").avgpool
    maps = torch.tensor([[[[1.0, 3.0], [0.0, 4.0]], [[-1.0, -1.0], [-1.0, -5.0]]]])
    assert pool(maps).flatten().tolist() == [4.0, -1.0, 2.0, -2.0]


# The same code as their smaller relatives, with more blocks.
DEEP = ("resnet32", "resnet44", "resnet56", "resnet110", "resnet56b", "resnet32x4", "wrn-40-1", "wrn-40-2")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in SOURCE.networks()]
)
@pytest.mark.parametrize(("in_channels", "image_size"), [(1, 8), (3, 45), pytest.param(3, 160, marks=pytest.mark.slow)])
def test_other_inputs_and_classes(name, in_channels, image_size):
    image_size = max(image_size, NETWORKS[name].min_image_size)
    with torch.device("meta"), torch.no_grad():
        module = build(name, 7, in_channels, image_size)
        assert not module.training
        assert module(torch.zeros(2, in_channels, image_size, image_size)).shape == (2, 7)


def test_large_images_do_not_make_conv4_fc2_large():
    with torch.device("meta"):
        assert size(build("conv4-fc2", image_size=224)) < 4 * size(build("conv4-fc2"))


def test_a_channel_more_or_less_leaves_the_initialisation_alike():
    gray, colour = (
        build("resnet10-concat-head", in_channels=channels).conv1.requires_grad_(False) for channels in (1, 3)
    )
    assert isinstance(gray, nn.Conv2d)
    assert float(gray.weight.std()) == pytest.approx(float(colour.weight.std()), rel=0.1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenet-6", {}, "did you mean lenet-5"),
        ("densenet-bc-100-12", {"image_size": 3}, "--image-size 4 or more"),
        ("lenet-5", {"width": 8}, "no --width; it is an option of conv4-fc2"),
    ],
)
def test_refusals(name, options, message):
    shape = {"classes": 10, "in_channels": 1, "image_size": options.pop("image_size", 28)}
    with pytest.raises(UsageError, match=message):
        make("teachers", "kdtool", **options).build(name, **shape)


def test_there_are_no_pretrained_weights():
    with pytest.raises(UsageError, match="no pretrained weights"):
        SOURCE.build("lenet-5", classes=10, in_channels=1, image_size=28, pretrained=True)
