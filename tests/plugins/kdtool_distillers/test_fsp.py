"""FSP against loops over channels and positions in numpy."""

import math

import numpy as np
import pytest
import torch

from kdtool import UsageError
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool_distillers.fsp import FSP, flow


def network(spec):
    return create(spec, options=NetworkOptions(classes=10, in_channels=3, image_size=32), data=None)


def by_hand(first, second):
    first, second = first.numpy(), second.numpy()
    products = np.zeros((first.shape[0], first.shape[1], second.shape[1]))
    height, width = second.shape[2:]
    step = first.shape[2] // height
    for image, i, j, y, x in np.ndindex(*products.shape, height, width):
        largest = first[image, i, y * step : (y + 1) * step, x * step : (x + 1) * step].max()
        products[image, i, j] += largest * second[image, j, y, x] / (height * width)
    return products


@pytest.mark.parametrize(("before", "after"), [((2, 2), (2, 2)), ((4, 4), (2, 2)), ((4, 6), (2, 3))])
def test_the_flow(numbers, before, after):
    first, second = numbers(2, 3, *before), numbers(2, 4, *after)
    np.testing.assert_allclose(flow(first, second), by_hand(first, second), rtol=1e-12)


def test_the_loss_goes_over_neighbours(numbers, step_of):
    student = numbers(2, 3, 4, 4), numbers(2, 4, 4, 4), numbers(2, 5, 2, 2)
    teacher = numbers(2, 3, 4, 4), numbers(2, 4, 4, 4), numbers(2, 5, 2, 2)
    terms = [
        ((by_hand(*student[first : first + 2]) - by_hand(*teacher[first : first + 2])) ** 2).mean() for first in (0, 1)
    ]
    value = FSP().loss(step_of(list(zip(student, teacher, strict=True))))
    assert value.item() == pytest.approx(math.log(3) + 50 * sum(terms), rel=1e-10)


def test_gradient(numbers):
    first, second = numbers(1, 2, 4, 4).requires_grad_(), numbers(1, 3, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(flow, (first, second))


def test_stem_and_stages_are_neighbours():
    resnet = network("torchvision:resnet18")
    watched = [pair.student.path for pair in FSP().watch(resnet, resnet)]
    assert watched == ["relu", "layer1", "layer2", "layer3", "layer4"]


def test_one_layer_has_no_neighbour():
    resnet = network("torchvision:resnet18")
    with pytest.raises(UsageError, match=r"only layer1=layer2 was found; name two or more layers with --taps"):
        FSP(taps=("layer1=layer2",)).watch(resnet, resnet)
