import pytest
import torch

from kdtool.surgery.slicing.kept_indices import even_indices, uneven
from kdtool.surgery.tracing.differences import difference, keeps


def rows(text):
    return torch.tensor([[mark == "x" for mark in row] for row in text.split()])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x.x. x.x.", [1, 3]),
        ("x.x. .... x.x.", [1, 3]),  # a class token, in which nothing differs
        ("xxxx .... xxxx", [0, 1, 2, 3]),  # channels stand in the rows
        ("xxxx x..x", [1, 2]),
        ("....", [0, 1, 2, 3]),
        ("xxxx xxxx", None),  # attention
        ("x... .x.. ..x.", None),
    ],
)
def test_channels_that_do_not_differ_are_kept(text, expected):
    kept = keeps(rows(text))
    assert (None if kept is None else kept.tolist()) == expected


def test_a_small_difference_is_that_of_a_mixture():
    first = torch.ones(1, 2, 3)
    second = torch.tensor([[[1.0, 2.0, 1.0], [1.0, 2.0, 1.0001]]])
    assert difference(torch.cat([first, second]), -1).tolist() == [[[False, True, False], [True, True, True]]]


@pytest.mark.parametrize(
    ("size", "ratio", "round_to", "expected"),
    [
        (6, 0.5, 1, [0, 2, 4]),
        (5, 0.5, 1, [0, 2, 4]),
        (1, 0.5, 1, [0]),
        (4, 0.75, 1, [0, 1, 2]),
        (32, 0.5, 16, 16),
        (24, 0.5, 16, 16),
        (8, 0.5, 16, 8),
    ],
)
def test_indices_are_spread_evenly(size, ratio, round_to, expected):
    kept = even_indices(size, ratio, round_to).tolist()
    assert (kept if isinstance(expected, list) else len(kept)) == expected
    assert len(set(kept)) == len(kept)
    assert max(kept) < size


def test_odd_groups_go_as_a_whole():
    conv = torch.nn.Conv2d(12, 12, 1, groups=4)
    assert uneven(torch.nn.Sequential(conv), 0.5)["", 12].tolist() == [0, 1, 2, 6, 7, 8]


def test_even_groups_need_no_pattern_of_their_own():
    conv = torch.nn.Conv2d(16, 16, 1, groups=4)
    assert uneven(torch.nn.Sequential(conv), 0.5) == {}
