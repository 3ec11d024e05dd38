"""When Muon pays, with operations that are counted by hand."""

import torch
from torch import nn

from kdtool.training.optimization.muon_cost import muon_operations, muon_pays


def test_operations_by_hand():
    # A convolution of 4 x (3 * 2 * 2) and a linear layer of 2 x 4; the depthwise convolution and the bias cost nothing.
    module = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Conv2d(4, 4, 3, groups=4), nn.Linear(4, 2))
    assert muon_operations(module) == 5 * 2 * ((2 * 16 * 12 + 64) + (2 * 4 * 4 + 8))
    module[0].requires_grad_(False)
    assert muon_operations(module) == 5 * 2 * (2 * 4 * 4 + 8)


def test_it_pays_where_the_step_is_large():
    layer = nn.Linear(100, 100)
    assert muon_operations(layer) == 30_000_000
    assert muon_pays(layer, macs=25_000_000)
    assert not muon_pays(layer, macs=24_999_999)
    assert muon_pays(nn.BatchNorm1d(3), torch.zeros(1).numel())
