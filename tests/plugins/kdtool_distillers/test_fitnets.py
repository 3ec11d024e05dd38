"""FitNets: the error by hand, and which layer is the hint."""

import pytest
import torch

from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool_distillers.fitnets import FitNets


def network(spec):
    return create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=64), data=None)


def test_the_loss_by_hand(step_of):
    maps = torch.tensor([[[[1.0, 2.0]]]], dtype=torch.float64), torch.tensor([[[[0.0, 4.0]]]], dtype=torch.float64)
    assert FitNets().loss(step_of([maps])).item() == pytest.approx(torch.tensor(3.0).log().item() + 100 * (1 + 4) / 2)


def test_gradient(numbers, step_of):
    maps, teacher = numbers(2, 3, 2, 2).requires_grad_(), numbers(2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda student: FitNets().loss(step_of([(student, teacher)])), maps)


def test_the_hint_is_in_the_middle():
    small, large = network("torchvision:resnet18"), network("torchvision:resnet50")
    (pair,) = FitNets().watch(small, large)
    assert (pair.student.path, pair.teacher.path) == ("layer2", "layer2")
    (layer,) = FitNets().adapters([pair])
    assert layer.mix.weight.shape == (512, 128, 1, 1)
    named = FitNets(taps=("layer1", "layer3=layer4")).watch(small, large)
    assert [(pair.student.path, pair.teacher.path) for pair in named] == [("layer1", "layer1"), ("layer3", "layer4")]
