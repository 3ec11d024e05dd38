"""The average of the weights, by hand."""

import torch
from torch import nn

from kdtool.training.optimization.averaging import WeightAverage


def test_average_by_hand():
    layer, norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    average = WeightAverage([layer, norm], 0.25)
    with torch.no_grad():
        layer.weight.fill_(3.0)
    norm.running_mean.fill_(8.0)
    norm.num_batches_tracked.fill_(7)
    average.update()
    # The decay of step 1 is (1 + 1) / (10 + 1), since that is below 0.25.
    with average.in_place():
        torch.testing.assert_close(layer.weight, torch.full((1, 1), 2 / 11 * 1.0 + 9 / 11 * 3.0))
        torch.testing.assert_close(norm.running_mean, torch.full((1,), 9 / 11 * 8.0))
        assert int(norm.num_batches_tracked) == 7
    assert layer.weight.item() == 3.0
    average.update()
    with average.in_place():  # (1 + 2) / (10 + 2) = 0.25
        torch.testing.assert_close(layer.weight, torch.full((1, 1), 0.25 * (2 / 11 + 27 / 11) + 0.75 * 3.0))


def test_state_goes_on():
    layer = nn.Linear(3, 2)
    average = WeightAverage([layer], 0.9)
    with torch.no_grad():
        layer.weight.add_(1)
    average.update()
    other = WeightAverage([layer], 0.9)
    other.load(average.state())
    average.update(), other.update()
    assert all(torch.equal(a, b) for a, b in zip(average.averages, other.averages, strict=True))
    assert other.steps == 2
