"""Pairs of layers, and what makes their outputs comparable."""

import pytest
import torch
from torch import nn

from kdtool.adapters import Pair, adapter, pairs_of
from kdtool.errors import UsageError
from kdtool.settings import NetworkOptions
from kdtool.sources import create
from kdtool.structure.taps import Tap


def network(spec):
    return create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=32), data=None)


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
