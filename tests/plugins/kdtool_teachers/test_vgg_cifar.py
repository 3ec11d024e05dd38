"""The number of layers, the order within a stage, and the biases."""

import pytest
import torch
from torch import nn

from kdtool_teachers.vgg_cifar import vgg_cifar


@pytest.mark.parametrize(("convolutions", "layers"), [(1, 8), (2, 13)])
def test_the_number_in_the_name_counts_the_two_linear_layers_that_went(convolutions, layers):
    net = vgg_cifar(10, 3, convolutions=convolutions)
    assert sum(isinstance(part, nn.Conv2d | nn.Linear) for part in net.modules()) == layers - 2


def test_a_stage_ends_with_its_relu_and_takes_the_pool_before_it():
    net = vgg_cifar(10, 1, convolutions=1)
    assert [[type(part).__name__ for part in net.get_submodule(f"layer{number}")] for number in (1, 2, 5)] == [
        ["Conv2d", "BatchNorm2d", "ReLU"],
        ["MaxPool2d", "Conv2d", "BatchNorm2d", "ReLU"],
        ["Conv2d", "BatchNorm2d", "ReLU"],
    ]


def test_biases_of_convolutions_start_at_zero():
    with torch.no_grad():
        assert all(
            not part.bias.any() for part in vgg_cifar(10, 1, convolutions=1).modules() if isinstance(part, nn.Conv2d)
        )
