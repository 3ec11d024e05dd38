"""The first convolution whitens the patches of the training images, and stays as it is."""

import pytest
import torch
from torch.nn import functional as F

import kdtool
from kdtool import UsageError
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training.optimization.whitening import whitened


def build(name, **own):
    return create(name, options=NetworkOptions(image_size=16, in_channels=1, classes=10), data=None, own=own, seed=0)


def test_its_outputs_are_uncorrelated(digits):
    network = whitened(build("kdtool:airbench94"), digits.train)
    layer = network.module.conv
    assert layer.weight.shape == (8, 1, 2, 2)
    torch.testing.assert_close(layer.weight[4:], -layer.weight[:4])
    images = torch.cat([batch[1] for batch in digits.train.batches(500)])
    outputs = F.conv2d(images, layer.weight[:4]).transpose(0, 1).flatten(1).double()
    products = outputs @ outputs.t() / outputs.shape[1]
    torch.testing.assert_close(products, torch.eye(4, dtype=torch.double), atol=0.02, rtol=0)
    assert not layer.weight.requires_grad
    assert layer.bias.requires_grad


def test_what_cannot_whiten_is_refused(digits):
    with pytest.raises(UsageError, match="--whiten: the first layer of this network is no convolution"):
        whitened(build("kdtool:lenet-300-100"), digits.train)
    with pytest.raises(UsageError, match="--whiten: the first convolution has 6 filters, and whitening takes 25"):
        whitened(build("kdtool:lenet-5"), digits.train)


def test_the_filters_stay_in_a_training(tmp_path):
    options = {"data": "digits", "image_size": 16, "subset": 0.2, "width": 4, "epochs": 1}
    made = kdtool.teacher("kdtool:airbench94", **options, whiten=True, weight_decay=0.1, output=tmp_path / "t.pt")
    plain = kdtool.teacher("kdtool:airbench94", **options, output=tmp_path / "p.pt")
    weight = made.module.conv.weight
    torch.testing.assert_close(weight[4:], -weight[:4])
    assert not torch.equal(weight, plain.module.conv.weight)
    assert all(parameter.requires_grad for parameter in made.module.parameters())
    assert made.history[-1]["initial"] == {"whiten": True}
    with pytest.raises(UsageError, match="--whiten: nothing is trained without --data"):
        kdtool.teacher("kdtool:airbench94", whiten=True, output=tmp_path / "q.pt")
