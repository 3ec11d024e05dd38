import pytest
import torch
from torch import nn

from kdtool.models.modules import Skip, leave_out, left_out


def named():
    parent = nn.Module()
    parent.first, parent.second = nn.Linear(2, 2), nn.Linear(2, 2)
    return parent


def test_children_called_by_name_are_passed_by():
    parent = named()
    leave_out(parent, ["second"])
    x = torch.rand(1, 2)
    assert isinstance(parent.second, Skip)
    assert parent.second(x, None, size=3) is x
    assert list(parent.state_dict()) == ["first.weight", "first.bias"]


def test_children_run_in_a_row_are_deleted():
    row = nn.ModuleList([nn.Linear(1, 1) for _ in range(3)])
    last = row[2]
    leave_out(row, ["1"])
    assert list(row) == [row[0], last]


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_left_out_comes_back(fails):
    module = nn.ModuleDict({"row": nn.Sequential(*(nn.Linear(1, 1) for _ in range(4))), "named": named()})
    before = dict(module.named_modules())
    try:
        with left_out(module, ["row.1", "row.3", "named.first"]):
            assert len(module["row"]) == 2
            assert isinstance(module["named"].first, Skip)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert dict(module.named_modules()) == before
    assert list(dict(module["row"].named_children())) == ["0", "1", "2", "3"]
