"""The digits of scikit-learn."""

import torch
from sklearn.datasets import load_digits

from kdtool.testing.checks import check_dataset
from kdtool_datasets.digits import Digits


def test_it_is_a_dataset():
    check_dataset(Digits)


def test_its_test_split_is_a_fixed_fifth_of_every_class():
    data = Digits().load("", None)
    assert data.val is None
    counts = torch.bincount(torch.cat([data.train.labels, data.test.labels]))
    assert torch.bincount(data.test.labels).tolist() == [round(0.2 * count) for count in counts.tolist()]
    assert torch.equal(Digits().load("", None).test.images, data.test.images)


def test_pixels_fill_the_range_and_belong_to_their_labels():
    data = Digits().load("", None)
    assert (int(data.train.images.min()), int(data.train.images.max())) == (0, 255)
    source = load_digits()
    known = {tuple(row.astype(int)): label for row, label in zip(source.data, source.target, strict=True)}
    for image, label in zip(data.test.images, data.test.labels.tolist(), strict=True):
        sixteenths = (image.float() * 16 / 255).round().int().flatten().tolist()
        assert known[tuple(sixteenths)] == label
