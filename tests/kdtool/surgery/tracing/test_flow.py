"""The preparation of a network for a trace, which leaves it as it was."""

import copy

import torch
from torch import nn

from kdtool.surgery.tracing.flow import positive


def test_tensors_that_modules_share_get_their_values_back():
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.PReLU(4))
    module[2].weight = module[0].weight
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([3.0, -2.0, 0.0, 7.0]))
    before = copy.deepcopy(module.state_dict())
    with torch.no_grad(), positive(module):
        assert module[0].weight.min() >= 0.5
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
