"""Which steps are taken: steps that fit are taken before steps that remove too much."""

import pytest
import torch
from torch import nn

from kdtool.models.size import macs
from kdtool.surgery.channels import selection
from kdtool.surgery.channels.groups import Group, Member
from kdtool.surgery.channels.selection import Costs, choose, ranked


class Counted:
    """Costs where each step of a group removes the same fraction."""

    def __init__(self, *each):
        self.each = each

    def removed(self, steps, groups):
        return sum(self.each[number] * step for number, step in steps.items())


def groups_of(*scores):
    return [ranked(Group(len(row), (), None), torch.tensor(row), 1, 1) for row in scores]


def test_a_later_small_step_is_taken_before_an_earlier_one_that_is_too_much():
    # By score, the steps are: large ones at 1, 2 and 3, then small ones at 4, 5 and 6. The third is too much.
    groups = groups_of([1.0, 2.0, 3.0, 9.0], [4.0, 5.0, 6.0, 9.0])
    taken = choose(groups, Counted(0.18, 0.02), 0.40, "global")
    assert taken == {0: 2, 1: 2}


def test_too_much_is_taken_where_it_is_nearer_than_too_little():
    (group,) = groups_of([1.0, 2.0, 3.0, 9.0])
    assert choose([group], Counted(0.18), 0.30, "global") == {0: 2}
    assert choose([group], Counted(0.18), 0.25, "global") == {0: 1}


@pytest.mark.parametrize(("ratio", "steps"), [(0.2, {0: 1, 1: 1}), (0.4, {0: 2, 1: 2})])
def test_with_the_scope_of_a_layer_all_lose_the_same_part(ratio, steps):
    groups = groups_of([1.0, 2.0, 3.0, 9.0], [40.0, 50.0, 60.0, 90.0])
    assert choose(groups, Counted(0.1, 0.1), ratio, "layer") == steps


def test_with_the_isomorphic_scope_each_class_loses_its_least_channels(monkeypatch):
    # Groups 0 and 2 are of one class, whose scores are ten thousand times those of the other.
    monkeypatch.setattr(selection, "topology", lambda graph: graph)
    rows = [10e4, 20e4, 30e4, 90e4], [1.0, 2.0, 3.0, 9.0], [40e4, 50e4, 60e4, 91e4]
    groups = [ranked(Group(4, (), graph), torch.tensor(row), 1, 1) for row, graph in zip(rows, "aba", strict=True)]
    # A quarter of each: 10 and 20 of the eight in class a, 1 of the four in class b.
    assert choose(groups, Counted(0.1, 0.1, 0.1), 0.3, "isomorphic") == {0: 2, 1: 1}
    # A half of each: 10, 20, 30 and 40, and 1 and 2.
    assert choose(groups, Counted(0.1, 0.1, 0.1), 0.6, "isomorphic") == {0: 3, 1: 2, 2: 1}


def test_steps_of_equal_scores_are_made_in_their_order():
    # The means of equal scores differ in their last bits.
    groups = groups_of([0.1] * 40)
    assert choose(groups, Counted(0.01), 0.2, "global") == {0: 20}


@pytest.mark.parametrize("split", [1, 2])
def test_the_macs_of_a_transposed_convolution_are_those_of_its_inputs(split):
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 6, 3, stride=2, groups=split), nn.Flatten(), nn.Linear(6 * 9 * 9, 2)
    ).eval()
    shape = (1, 6, 6)
    whole = macs(module, shape)
    # Half of its outputs go, for each of which 4 * 4 inputs of each channel of its group are multiplied with 9 weights.
    channels = torch.arange(6)
    group = ranked(Group(6, (Member("1", "outputs", channels, channels, 6),), None), torch.ones(6), 1, 3)
    costs = Costs(module, shape, "macs", whole)
    assert costs.removed({0: 1}, [group]) == pytest.approx(4 * 4 * 4 * 6 // split * 9 / 2 / whole)
