"""A budget is met from above, as nearly as single channels allow."""

import itertools

import pytest
import torch
from torch import nn

from kdtool.errors import UsageError
from kdtool.models.architecture import Architecture, Network
from kdtool.plugins.budget import Budget
from kdtool.surgery.gates import GateCosts, check_budget, fill_up, gate_channels


def costs_of(widths, count="parameters", round_to=1):
    """Costs of a chain of linear layers: parameters are products of neighbouring widths, without biases."""
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)]
    module = nn.Sequential(nn.Flatten(), *itertools.chain(*([layer, nn.ReLU()] for layer in layers[:-1])), layers[-1])
    options = {"classes": widths[-1], "in_channels": 1, "image_size": 2, "stem": "default"}
    gated = gate_channels(Network(Architecture("kdtool", "lenet-5", options), module))
    return GateCosts(gated.module, (1, 2, 2), count, round_to)


def by_hand(widths, kept_of):
    return sum(a * b for a, b in itertools.pairwise([widths[0], *kept_of, widths[-1]]))


@pytest.fixture
def costs():
    return costs_of([4, 8, 6, 3])


def widths_of(costs, kept):
    return [int(kept[costs.sets == number].sum()) for number in range(costs.set_count)]


def test_the_cost_of_kept_columns_by_hand(costs):
    kept = torch.zeros(14, dtype=torch.bool)
    kept[[0, 1, 2, 8, 9]] = True
    assert widths_of(costs, kept) == [3, 2]  # of the layers of 6 and of 8 channels
    assert costs.of_kept(kept) == by_hand([4, 8, 6, 3], [2, 3]) == 4 * 2 + 2 * 3 + 3 * 3


def test_the_most_needed_columns_that_fit_are_kept(costs):
    kept = torch.zeros(14, dtype=torch.bool)
    kept[[0, 8]] = True
    needed = torch.arange(14, dtype=torch.float)
    # The gates with the largest numbers are needed most.
    filled = fill_up(costs, kept, needed, by_hand([4, 8, 6, 3], [3, 1]))
    assert filled.nonzero().flatten().tolist() == [0, 8, 12, 13]


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.65, 0.8])
@pytest.mark.parametrize("round_to", [1, 16])
@pytest.mark.parametrize("count", ["macs", "parameters"])
def test_no_budget_is_exceeded_and_little_is_left(share, round_to, count):
    costs = costs_of([4, 64, 48, 96, 10], count, round_to)
    limit = share * costs.total
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        values = torch.rand(costs.gates, generator=draw)
        kept = values > 0.9
        for number in range(costs.set_count):
            kept[(costs.sets == number).nonzero()[0]] = True
        kept = costs.kept(kept)
        if costs.of_kept(kept) > limit:
            continue
        filled = fill_up(costs, kept, values, limit)
        assert 0.98 * limit <= costs.of_kept(filled) <= limit


def test_one_wide_step_is_exchanged_for_narrow_ones():
    # A channel of the layer of 20 costs 4 + 48, one of that of 48 costs 20 + 10: one comes for one of the others.
    costs = costs_of([4, 20, 48, 10])
    kept = torch.ones(68, dtype=torch.bool)
    kept[67] = False
    before = by_hand([4, 20, 48, 10], [19, 48])
    assert costs.of_kept(kept) == before
    filled = fill_up(costs, kept, torch.linspace(1, 0, 68), before + 40)
    assert filled[67]
    assert (~filled).nonzero().flatten().tolist() == [47]
    assert costs.of_kept(filled) == before + 4 + 48 - 20 - 10


class Standardised(nn.Module):
    """A network where gates can stand in a small branch alone: norms of groups compute from all channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 32, 3, padding=1), nn.GroupNorm(4, 32)
        self.body, self.last = nn.Conv2d(32, 32, 3, padding=1), nn.GroupNorm(4, 32)
        self.squeeze, self.excite, self.head = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1), nn.Linear(32, 10)

    def forward(self, x):
        x = self.last(self.body(self.norm(self.stem(x)).relu()))
        weights = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head((x * weights).mean((2, 3)))


def test_a_budget_that_gates_cannot_reach_is_refused_with_the_reason(costs):
    shape = {"classes": 10, "in_channels": 1, "image_size": 4}
    small = GateCosts(gate_channels(Network(Architecture("test", "gn", shape), Standardised())).module, (1, 4, 4))
    with pytest.raises(
        UsageError, match=r"^--target-macs 0.5x: gates can remove no more than 0.29% of the 153k MACs of"
    ):
        check_budget(small, Budget.parse("0.5x"), "--target-macs", "test:gn")
    with pytest.raises(UsageError, match=r"0.01x: with one channel per layer test:net still has"):
        check_budget(costs, Budget.parse("0.01x"), "--target-params", "test:net")
