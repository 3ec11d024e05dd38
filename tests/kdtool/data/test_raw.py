"""Splits by class, and what a data set's plugin must not return."""

from pathlib import Path

import pytest
import torch

from kdtool.data.raw import RawData, RawSplit, stratified
from kdtool.errors import Error


def split(counts, channels=1):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    return RawSplit(torch.arange(len(labels) * channels).to(torch.uint8).view(-1, channels, 1, 1), labels)


def test_stratified_takes_the_same_share_of_every_class():
    labels = split([100, 10, 40]).labels
    chosen = stratified(labels, 0.25, seed=0)
    assert torch.bincount(labels[chosen]).tolist() == [25, 2, 10]
    assert torch.equal(chosen, chosen.unique())
    assert torch.equal(chosen, stratified(labels, 0.25, seed=0))
    assert not torch.equal(chosen, stratified(labels, 0.25, seed=1))


def test_a_smaller_share_is_a_part_of_a_larger_one():
    labels = split([100, 10, 40]).labels
    small, large = (set(stratified(labels, fraction, seed=0).tolist()) for fraction in (0.1, 0.3))
    assert small < large


def test_hold_out_parts_the_images_and_leaves_one_of_each_class():
    whole = split([50, 2, 1])
    rest, held = whole.hold_out(0.9, seed=0)
    assert torch.bincount(held.labels, minlength=3).tolist() == [45, 1, 0]
    assert torch.bincount(rest.labels, minlength=3).tolist() == [5, 1, 1]
    together = torch.cat([rest.images, held.images]).flatten().sort().values
    assert torch.equal(together, whole.images.flatten().sort().values)
    for part in (rest, held):  # each image keeps its label
        assert torch.equal(whole.labels[part.images.flatten().long()], part.labels)


def test_hold_out_needs_two_images_of_a_class():
    with pytest.raises(Error, match="no class has more than one image"):
        split([1, 1]).hold_out(0.5, seed=0)


def test_take_keeps_at_least_one_of_each_class():
    assert torch.bincount(split([100, 3]).take(0.01, seed=0).labels).tolist() == [1, 1]


def test_select_of_paths():
    paths = RawSplit(tuple(Path(name) for name in "abc"), torch.tensor([0, 1, 0]))
    chosen = paths.select(torch.tensor([2, 1]))
    assert chosen.images == (Path("c"), Path("b"))
    assert chosen.labels.tolist() == [0, 1]


IMAGES = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.float(), torch.tensor([0, 1]), "must be uint8"),
        (IMAGES[0], torch.tensor([0]), "must be uint8"),
        (IMAGES, torch.tensor([0.0, 1.0]), "labels must be int64"),
        (IMAGES, torch.tensor([0]), "2 images have 1 labels"),
        ((), torch.tensor([], dtype=torch.int64), "no images"),
    ],
)
def test_wrong_splits(images, labels, message):
    with pytest.raises(Error, match=message):
        RawSplit(images, labels)


def raw(**changes):
    return RawData(**{"train": split([2, 2]), "val": None, "test": None, "classes": ("a", "b"), "channels": 1,
                      "image_size": 1, **changes})  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a",)}, r"1 class \(a\); a classifier needs two"),
        ({"classes": ("a", "a")}, "two classes have the same name"),
        ({"classes": ("a", "b", "c")}, "train split has no image of class 'c'"),
        ({"test": split([1, 1, 1])}, "test split has labels 0 to 2, but there are 2 classes"),
        ({"test": RawSplit(IMAGES, torch.tensor([0, -1]))}, "test split has labels -1 to 0, but there are 2 classes"),
        ({"mean": (0.5,)}, "mean and std must be given together"),
        ({"mean": (0.5,), "std": (0.5, 0.5)}, "std has 2 numbers for 1 channels"),
        ({"val": split([1, 1], channels=3)}, "val split has 3 channels, not 1"),
    ],
)
def test_inconsistent_data(changes, message):
    with pytest.raises(Error, match=message):
        raw(**changes)


def test_a_class_may_be_missing_from_test():
    assert raw(test=split([3])).test.labels.tolist() == [0, 0, 0]
