"""Weights rescaled to the size of another network's weights, with the same outputs."""

import copy

import pytest
import torch
from torch import nn

from kdtool.models.architecture import Network
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery.gates.rescale import scaled_like


def network(spec, size=32, seed=0):
    return create(spec, options=NetworkOptions(classes=10, image_size=size), data=None, seed=seed)


def shrunk(net, factor):
    """Return the network with smaller convolutions, as gates that all shrank leave them, and fitting statistics."""
    module = copy.deepcopy(net.module).double()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.mul_(factor)
            if isinstance(part, nn.BatchNorm2d):
                part.running_var.mul_(factor**2)
                part.eps *= factor**2
    return Network(net.architecture, module)


def rms(tensor):
    return float(tensor.detach().double().square().mean().sqrt())


@pytest.mark.parametrize("spec", ["kdtool:resnet20", "timm:mobilenetv3_small_100", "kdtool:densenet-bc-100-12"])
def test_as_large_and_the_same(spec):
    teacher = network(spec)
    small = shrunk(teacher, 0.03)
    small.module.float()
    scaled = scaled_like(small, teacher)
    moved = 0
    for path, layer in scaled.module.named_modules():
        target = teacher.module.get_submodule(path)
        if isinstance(layer, nn.Conv2d) and rms(layer.weight) != pytest.approx(0.03 * rms(target.weight), rel=1e-3):
            assert rms(layer.weight) == pytest.approx(rms(target.weight), rel=1e-3)
            moved += 1
    assert moved > 15
    for module in (scaled.module, small.module):
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eps = 1e-30  # 0 is an error in some versions of torch
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(scaled.module(images), small.module(images), rtol=1e-3, atol=1e-4)


def test_by_hand():
    """The weight is 2 and the teacher's 6, three times as large: mean 1 becomes 3, and variance 4 becomes 36."""

    def make(value):
        net = network("kdtool:resnet20")
        module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                               nn.Linear(4, 10)).eval()  # fmt: skip
        with torch.no_grad():
            module[0].weight.fill_(value)
            module[0].bias.fill_(0.5)
            module[1].running_mean.fill_(1)
            module[1].running_var.fill_(4)
        return Network(net.architecture, module)

    scaled = scaled_like(make(2.0), make(6.0)).module
    assert scaled[0].weight.unique().item() == pytest.approx(6)
    assert scaled[0].bias.unique().item() == pytest.approx(1.5)
    assert scaled[1].running_mean.unique().item() == pytest.approx(3)
    assert scaled[1].running_var.unique().item() == pytest.approx(36)


def test_what_something_else_listens_to_stays():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 10)

        def forward(self, x):
            y = self.conv(x)
            return self.fc((self.norm(y) + y).mean((2, 3)))

    net = network("kdtool:resnet20")
    small, large = (Network(net.architecture, Twice().eval()) for _ in range(2))
    small.module.conv.weight.data.mul_(0.1)
    assert scaled_like(small, large) is small
