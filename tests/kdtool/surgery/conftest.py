"""Fixtures of structural edits."""

import pytest
import torch
from torch import nn


@pytest.fixture
def randomise():
    """Return a function that gives every batch-norm random statistics and gains, so that no two channels are alike."""

    def change(module):
        generator = torch.Generator().manual_seed(0)
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                for tensor in (part.weight.data, part.running_var):
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
                for tensor in (part.bias.data, part.running_mean):
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)

    return change
