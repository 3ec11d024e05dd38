import pytest
import torch
from torch import nn

from kdtool.models.edits import base_path, drop_modules, fit_shapes


def row(count):
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(count)))


def test_what_is_left_is_numbered_anew():
    module = nn.ModuleDict({"a": row(5), "b": row(2)})
    kept = [module["a"][i] for i in (0, 2, 4)]
    drop_modules(module, ["a.1", "a.3"])
    assert list(module["a"]) == kept
    assert list(dict(module["a"].named_children())) == ["0", "1", "2"]
    assert len(module["b"]) == 2


def test_names_that_are_no_numbers_stay():
    module = nn.ModuleDict({"one": nn.Linear(1, 1), "two": nn.Linear(1, 1)})
    drop_modules(module, ["one"])
    assert list(module) == ["two"]


def test_an_unknown_module_is_an_error():
    with pytest.raises(AttributeError):
        drop_modules(row(2), ["7"])


def test_paths_lead_back_to_the_base_network():
    module = nn.ModuleDict({"a": nn.Sequential(row(2), row(3), row(3))})
    dropped = ["a.1", "a.2.0"]
    expected = {"a.0.1": "a.0.1", "a.1": "a.2", "a.1.0": "a.2.1", "a.1.1": "a.2.2"}
    drop_modules(module, dropped)
    assert {path: base_path(module, path, dropped) for path in expected} == expected


def test_a_shared_parameter_stays_shared():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    fit_shapes(module, {"0.weight": torch.zeros(2, 4), "1.weight": torch.zeros(2, 4)})
    assert module[1].weight is module[0].weight
    assert module[0].weight.shape == (2, 4)
