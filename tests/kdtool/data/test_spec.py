"""What a checkpoint remembers survives as plain data, and nothing else is taken for it."""

import dataclasses
import json

import pytest

from kdtool.data.spec import DataSpec
from kdtool.errors import Error

SPEC = DataSpec(
    name="mnist",
    directory="/data",
    subset=0.5,
    validation=0.1,
    split_seed=3,
    augment="standard",
    image_size=28,
    in_channels=1,
    classes=("a", "b"),
    mean=(0.1,),
    std=(0.3,),
)  # fmt: skip


def test_plain_data_and_back():
    assert DataSpec.from_data(json.loads(json.dumps(SPEC.as_data()))) == SPEC


def test_whole_numbers_become_fractions():
    assert type(dataclasses.replace(SPEC, subset=1).subset) is float


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 3),
        ("name", ""),
        ("name", "folder:\0"),
        ("directory", 0),
        ("directory", ["/"]),
        ("subset", 0),
        ("subset", True),
        ("subset", float("nan")),
        ("validation", 1.0),
        ("split_seed", -1),
        ("split_seed", 2.0),
        ("augment", "lots"),
        ("augment", ["none"]),
        ("image_size", 0),
        ("image_size", 10**9),
        ("in_channels", 3),
        ("classes", "ab"),
        ("classes", ["only"]),
        ("classes", [1, 2]),
        ("mean", [0.1, 0.2]),
        ("mean", ["0.1"]),
        ("std", [0.0]),
        ("std", None),
    ],
)
def test_other_values_are_refused(name, value):
    with pytest.raises(Error, match=r"^data description: [^\n]*$"):
        DataSpec.from_data({**SPEC.as_data(), name: value})


def test_other_entries_are_refused():
    plain = SPEC.as_data()
    with pytest.raises(Error, match="unknown entries extra"):
        DataSpec.from_data({**plain, "extra": 1})
    plain.pop("mean")
    with pytest.raises(Error, match="unknown entries mean"):
        DataSpec.from_data(plain)
    with pytest.raises(Error, match="cannot be a list"):
        DataSpec.from_data([])
