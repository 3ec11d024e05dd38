"""The sums of distances, computed by hand."""

import pytest
import torch
from torch import nn

from kdtool.models.architecture import Architecture, Network
from kdtool.surgery.channels.groups import groups
from kdtool_pruners.geometric_median import distances


def test_the_filter_in_the_middle_scores_least():
    module = nn.Sequential(nn.Conv2d(1, 3, (1, 2), bias=False), nn.Flatten(), nn.Linear(3 * 4 * 3, 3))
    module[0].weight.data.copy_(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]]).view(3, 1, 1, 2))
    architecture = Architecture("test", "net", {"classes": 3, "in_channels": 1, "image_size": 4})
    (group,) = groups(Network(architecture, module))
    # 5 + 3, 5 + 4 and 3 + 4, with mean 8. The first filter has the smallest norm, but not the smallest distances.
    assert distances(group.graph).tolist() == pytest.approx([1.0, 9 / 8, 7 / 8])
