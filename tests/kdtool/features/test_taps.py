"""Where stages end: known networks by their known layers, and what has none."""

import pytest

from kdtool.errors import Error, UsageError
from kdtool.features.taps import stage_taps, tap
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create


def network(spec, size=32, classes=10):
    return create(spec, options=NetworkOptions(classes=classes, in_channels=3, image_size=size), data=None)


def test_a_resnet_has_the_five_maps_of_the_paper():
    taps = stage_taps(network("torchvision:resnet18"))
    assert [(one.path, one.shape) for one in taps] == [
        ("relu", (64, 16, 16)),
        ("layer1", (64, 8, 8)),
        ("layer2", (128, 4, 4)),
        ("layer3", (256, 2, 2)),
        ("layer4", (512, 1, 1)),
    ]
    # The same for one block a stage, and with the authors' head, whose pool is no tap.
    assert [one.path for one in stage_taps(network("kdtool:resnet10-concat-head"))] == [one.path for one in taps]


@pytest.mark.parametrize(
    ("spec", "size", "paths"),
    [
        ("torchvision:mobilenet_v2", 64, [f"features.{number}" for number in (0, 1, 3, 6, 13, 18)]),
        ("timm:convnext_atto", 64, ["stem", "stages.0", "stages.1", "stages.2", "stages.3"]),
        ("timm:vit_tiny_patch16_224", 64, ["patch_embed", "norm"]),
        ("kdtool:conv4-fc2", 32, ["relu2", "relu4"]),
    ],
)  # fmt: skip
def test_stages_of(spec, size, paths):
    assert [one.path for one in stage_taps(network(spec, size))] == paths


@pytest.mark.parametrize(
    ("spec", "classes", "last"),
    [
        ("kdtool:resnet20", 64, "layer3"),
        ("timm:test_vit", 64, "norm"),
        ("timm:test_convnext", 64, "stages.3"),
        # A convolution behind all stages makes the logits.
        ("torchvision:squeezenet1_1", 64, "features.7"),
        ("torchvision:squeezenet1_1", 10, "features.7"),
    ],
)
def test_the_last_stage_may_have_as_many_channels_as_there_are_classes(spec, classes, last):
    taps = stage_taps(network(spec, 64, classes))
    assert taps[-1].path == last
    assert classes == 10 or spec.startswith("torchvision") or taps[-1].channels == classes


def test_layouts():
    assert [(one.layout, one.channels) for one in stage_taps(network("timm:vit_tiny_patch16_224", 64))] == [
        ("tokens", 192),
        ("tokens", 192),
    ]
    assert tap(network("timm:swin_tiny_patch4_window7_224", 64), "layers.1").layout == "nhwc"


def test_a_network_without_maps_is_refused():
    plain = create("kdtool:lenet-300-100", options=NetworkOptions(), data=None)
    with pytest.raises(Error, match="kdtool:lenet-300-100: has no stages"):
        stage_taps(plain)


def test_a_layer_that_is_not_there():
    resnet = network("torchvision:resnet18")
    with pytest.raises(UsageError, match=r"has no layer 'layer5'.*layer4"):
        tap(resnet, "layer5")
    with pytest.raises(UsageError, match="'fc' is no map"):
        tap(resnet, "fc")
