"""FitNets: the error by hand, and which layer is the hint."""

import numpy as np
import pytest
import torch

from kdtool.features.pairs import Pair
from kdtool.features.taps import Tap
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool_distillers.fitnets import FitNets


def network(spec):
    return create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=64), data=None)


def test_the_loss_by_hand(step_of):
    maps = torch.tensor([[[[1.0, 2.0]]]], dtype=torch.float64), torch.tensor([[[[0.0, 4.0]]]], dtype=torch.float64)
    assert FitNets().loss(step_of([maps])).item() == pytest.approx(torch.tensor(3.0).log().item() + 100 * (1 + 4) / 2)


def resized(maps, size):
    """Bilinear interpolation along both sides, whose pixels are areas (no aligned corners), with loops."""
    for axis in (2, 3):
        lines, count = [], maps.shape[axis]
        for place in range(size):
            where = max((place + 0.5) * count / size - 0.5, 0)
            low, share = int(where), where - int(where)
            ends = [np.take(maps, [min(end, count - 1)], axis) for end in (low, low + 1)]
            lines.append((1 - share) * ends[0] + share * ends[1])
        maps = np.concatenate(lines, axis)
    return maps


@pytest.mark.parametrize(("side", "other"), [(4, 4), (4, 2), (2, 4), (3, 5)])
def test_the_loss_goes_through_the_regressor(side, other, numbers, step_of):
    """Romero et al.: the squared error of r(f), with a convolution r, against the teacher's map."""
    torch.manual_seed(0)
    pair = Pair(Tap("a", (3, side, side), "nchw"), Tap("b", (4, other, other), "nchw"), as_map=True)
    method, student, teacher = FitNets(weight=7.0), numbers(2, 3, side, side), numbers(2, 4, other, other)
    regressor = method.adapters([pair]).double()
    weight, bias = (tensor.detach().numpy() for tensor in regressor[0].mix.parameters())
    mixed = np.einsum("bchw,oc->bohw", student.numpy(), weight[:, :, 0, 0]) + bias[:, None, None]
    expected = np.log(3) + 7 * ((resized(mixed, other) - teacher.numpy()) ** 2).mean()
    loss = method.loss(step_of([(regressor([student])[0], teacher)]))
    assert loss.item() == pytest.approx(expected, rel=1e-11)


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
