"""The shortcut of a block, and the depth and width of the network."""

import pytest
import torch
from torch import nn

from kdtool_teachers.wide_resnet import Block, wide_resnet


def test_a_block_of_one_shape_passes_its_input_on_as_it_is():
    block = Block(2, 2, 1).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.tensor([-1.0, 2.0]).view(1, 2, 1, 1)
    assert torch.equal(block(x), x)


def test_a_change_of_shape_is_a_convolution_of_what_was_normed_and_rectified():
    block = Block(2, 3, 2).eval()
    nn.init.zeros_(block.conv2.weight)
    nn.init.ones_(block.shortcut.weight)
    x = torch.tensor([[-1.0, 9.0], [9.0, 9.0]]).view(1, 1, 2, 2) * torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    # The kernel reads the corner only: max(0, -1) + max(0, 2), divided by the norm's sqrt(1 + 1e-5).
    assert block(x).flatten().tolist() == pytest.approx([2, 2, 2], abs=1e-4)


@pytest.mark.parametrize(("depth", "factor"), [(16, 2), (40, 1)])
def test_depth_counts_the_convolutions_and_widths_are_times_the_factor(depth, factor):
    net = wide_resnet(10, 3, depth=depth, factor=factor)
    # The paper's 6 n + 4 has a 1x1 convolution for each stage; at factor 1 the first stage needs none.
    convolutions = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == depth - (factor == 1)
    assert [net.get_submodule(f"layer{number}")[0].conv2.out_channels for number in (1, 2, 3)] == [
        16 * factor,
        32 * factor,
        64 * factor,
    ]
