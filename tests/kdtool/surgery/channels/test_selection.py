"""Which steps are taken: steps that fit are taken before steps that remove too much."""

import pytest
import torch

from kdtool.surgery.channels.groups import Group
from kdtool.surgery.channels.selection import choose, ranked


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
