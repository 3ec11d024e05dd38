"""The two shortcuts of a block, and the depth and initialisation of the network."""

import torch
from torch import nn

from kdtool_teachers.resnet_cifar import Block, resnet_cifar


def silenced(block):
    for part in block.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.zeros_(part.weight)
    return block.eval()


def test_the_parameterless_shortcut_takes_every_second_pixel_and_adds_zeros():
    block = silenced(Block(2, 5, 2, projects=False))
    x = torch.arange(18.0).view(1, 2, 3, 3) - 4
    y = block(x)
    assert y.shape == (1, 5, 2, 2)
    assert y[0, 0].tolist() == [[0, 0], [2, 4]]
    assert y[0, 1].tolist() == [[5, 7], [11, 13]]
    assert not y[0, 2:].any()


def test_the_projection_is_a_convolution_and_a_norm():
    block = Block(2, 5, 2, projects=True)
    assert [type(part) for part in block.shortcut] == [nn.Conv2d, nn.BatchNorm2d]
    assert not silenced(block)(torch.rand(1, 2, 4, 4)).any()


def test_a_block_of_one_shape_passes_its_input_on_and_rectifies_it():
    x = torch.tensor([-1.0, 2.0]).view(1, 2, 1, 1)
    for projects in (False, True):
        assert silenced(Block(2, 2, 1, projects=projects))(x).flatten().tolist() == [0, 2]


def test_the_number_in_the_name_counts_the_layers():
    net = resnet_cifar(10, 3, depth=32)
    assert sum(isinstance(part, nn.Conv2d | nn.Linear) for part in net.modules()) == 32


def test_convolutions_start_as_he_et_al_have_it():
    weight = resnet_cifar(10, 3, depth=8, widths=(16, 16, 32, 256)).layer3[0].conv2.weight
    assert abs(float(weight.detach().std()) / (2 / (9 * 256)) ** 0.5 - 1) < 0.01
