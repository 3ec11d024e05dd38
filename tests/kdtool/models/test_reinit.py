"""Fresh weights of layers that were resized: as the network's own initialisation would have them."""

import pytest
import torch
from torch import nn

from kdtool.models.reinit import fill


def identity(inputs, outputs):
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[:inputs])
    return conv


def resized(base, inputs, outputs):
    new = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    fill(nn.Sequential(new), nn.Sequential(base))
    return new


@pytest.mark.parametrize(
    ("old", "new"), [((32, 128), (12, 36)), ((128, 128), (36, 28)), ((128, 128), (28, 36)), ((16, 8), (5, 5))]
)
def test_a_convolution_that_begins_as_the_identity_still_does(old, new):
    torch.manual_seed(0)
    conv = resized(identity(*old), *new)
    images = torch.randn(2, new[0], 6, 6)
    same = min(new)
    with torch.no_grad():
        assert torch.equal(conv(images)[:, :same], images[:, :same])
    assert conv.weight[same:].flatten(1).abs().amax(1).gt(0).all()
    assert len(conv.weight.flatten(1).unique(dim=0)) == new[1]


def test_the_others_are_scaled_by_their_inputs():
    torch.manual_seed(0)
    base = identity(32, 128)
    conv = resized(base, 8, 64)
    assert torch.equal(conv.weight[8:, 0], base.weight[32:][torch.arange(56) * 96 // 56, 0] * 2)


def test_a_convolution_of_the_same_size_keeps_its_weights():
    base = identity(4, 6)
    assert torch.equal(resized(base, 4, 6).weight, base.weight)


def test_other_convolutions_have_evenly_spaced_entries():
    base = nn.Conv2d(4, 6, 3, bias=False)
    assert torch.equal(resized(base, 1, 3).weight, base.weight[::2, :1] * 2)
