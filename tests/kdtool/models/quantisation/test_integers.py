"""The network of integers computes what the one that rounds does."""

import pytest
import torch
from torch import nn

from kdtool.models.options import NetworkOptions
from kdtool.models.quantisation.integers import integer_network
from kdtool.models.quantisation.training import begin_to_round
from kdtool.models.sources import create


@pytest.mark.parametrize("dead", [False, True])
def test_a_branch_of_zeros_leaves_the_weights_of_other_layers_fine(dead):
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = create("kdtool:resnet20", options=NetworkOptions(classes=10, in_channels=1, image_size=8), data=None)
    norms = [module for module in network.module.modules() if isinstance(module, nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(1)
    for norm in norms:
        nn.init.normal_(norm.bias, std=0.5, generator=generator)
    if dead:
        nn.init.zeros_(norms[-1].weight)
        nn.init.zeros_(norms[-1].bias)
    rounding = begin_to_round(network, [images])
    with torch.no_grad():
        expected = rounding.module.eval()(images)
        found = integer_network(rounding).module(images)
    assert (found - expected).abs().mean() < 5e-3 * expected.abs().max()
