"""Pairs of layers, and what makes their outputs comparable."""

import pytest
import torch
from torch import nn

from kdtool.errors import UsageError
from kdtool.features.adapters import adapter
from kdtool.features.pairs import Pair, last_stage_pair, match_stages, pairs_of
from kdtool.features.taps import Tap
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.plugins.method_code import MethodError


def network(spec, size=32):
    return create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=size), data=None)


def test_equal_shapes_need_no_adapter():
    tap = Tap("layer1", (8, 4, 4), "nchw")
    assert isinstance(adapter(Pair(tap, tap)), nn.Identity)


@pytest.mark.parametrize(
    ("student", "teacher", "shape"),
    [
        (Tap("a", (8, 4, 4), "nchw"), Tap("b", (6, 2, 2), "nchw"), (2, 6, 2, 2)),
        (Tap("a", (8, 4, 4), "nchw"), Tap("b", (2, 2, 6), "nhwc"), (2, 6, 2, 2)),
        (Tap("a", (8, 4, 4), "nchw"), Tap("b", (17, 6), "tokens"), (2, 6, 4, 4)),  # one class token
        (Tap("a", (16, 8), "tokens"), Tap("b", (6, 4, 4), "nchw"), (2, 6, 4, 4)),
    ],
)
def test_shapes_meet(student, teacher, shape):
    pair = Pair(student, teacher)
    ours = adapter(pair)(pair.of_student(torch.rand(2, *student.shape)))
    theirs = pair.of_teacher(torch.rand(2, *teacher.shape))
    assert ours.shape == theirs.shape == shape


def test_class_tokens_are_left_out():
    teacher = Tap("b", (5, 1), "tokens")
    pair = Pair(Tap("a", (1, 2, 2), "nchw"), teacher)
    tokens = torch.tensor([9.0, 0, 1, 2, 3]).view(1, 5, 1)
    assert pair.of_teacher(tokens).tolist() == [[[[0.0, 1.0], [2.0, 3.0]]]]


def test_pairs_by_hand_and_found():
    small, large = network("torchvision:resnet18"), network("torchvision:resnet34")
    assert [(pair.student.path, pair.teacher.path) for pair in pairs_of(small, large)] == [
        (name, name) for name in ("relu", "layer1", "layer2", "layer3", "layer4")
    ]
    named = pairs_of(small, large, ["layer1=layer2", "layer4"])
    assert [(pair.student.path, pair.teacher.path) for pair in named] == [("layer1", "layer2"), ("layer4", "layer4")]


def test_other_numbers_of_stages_are_refused():
    with pytest.raises(UsageError, match=r"the student has 2 stages \(relu2, relu4\) and the teacher 5 .*--taps"):
        pairs_of(network("kdtool:conv4-fc2"), network("torchvision:resnet18"))


def named(pairs):
    return [(pair.student.path, pair.teacher.path) for pair in pairs]


def test_stages_are_matched_by_resolution():
    # 64 pixels: the ResNet's stages have 16, 8, 4 and 2, those of MobileNetV2 32, 16, 8, 4 and 2.
    small, large = network("torchvision:mobilenet_v2", 64), network("torchvision:resnet18", 64)
    pairs = match_stages(small, large)
    assert named(pairs) == [
        ("features.3", "layer1"),
        ("features.6", "layer2"),
        ("features.13", "layer3"),
        ("features.18", "layer4"),
    ]
    assert all(pair.as_map for pair in pairs)
    assert named(match_stages(large, large, stem=True))[0] == ("relu", "relu")
    assert named(match_stages(small, large, ["features.3=layer2"])) == [("features.3", "layer2")]


def test_other_resolutions_are_matched_by_depth():
    # 32 pixels: 15 and 6 (student), 16 (stem), 8, 4, 2 and 1.
    assert named(match_stages(network("kdtool:conv4-fc2"), network("torchvision:resnet18"))) == [
        ("relu2", "layer2"),
        ("relu4", "layer4"),
    ]


def test_one_resolution_of_many_is_none():
    # DenseNet-BC ends at 8x8, where DenseNet-121 has its first block.
    assert named(match_stages(network("kdtool:densenet-bc-100-12"), network("torchvision:densenet121"))) == [
        ("features.transition1.conv", "features.transition1.conv"),
        ("features.transition2.conv", "features.transition2.conv"),
        ("features.norm5", "features.norm5"),
    ]


def test_tokens_are_matched_by_the_square_that_they_make():
    vit, resnet = network("timm:vit_tiny_patch16_224", 64), network("torchvision:resnet18", 64)
    (pair,) = match_stages(vit, resnet)
    assert (pair.student.path, pair.teacher.path) == ("norm", "layer3")  # 4x4
    assert pair.of_student(torch.rand(2, *pair.student.shape)).shape == (2, 192, 4, 4)
    # Alike, and still compared as maps.
    (pair,) = match_stages(vit, vit)
    assert pair.of_teacher(torch.rand(2, 17, 192)).shape == (2, 192, 4, 4)


def test_the_last_maps():
    (pair,) = last_stage_pair(network("kdtool:conv4-fc2"), network("torchvision:resnet18"))
    assert (pair.student.path, pair.teacher.path) == ("relu4", "layer4")


@pytest.mark.parametrize("taps", ["", "2,5"])
def test_one_text_is_no_list_of_layers(taps):
    lenet = network("kdtool:lenet-5", 28)
    with pytest.raises(MethodError, match=rf"^taps are '{taps}', one text; declare the option as tuple\[str, \.\.\.\]"):
        match_stages(lenet, lenet, taps)
