"""Splits, subsets, views and normalisation of an opened data set."""

import dataclasses

import pytest
import torch

import kdtool.data.images
from kdtool.data import splits
from kdtool.data.dataset import Dataset
from kdtool.data.images import JoinedImages
from kdtool.data.opening import open_data, open_spec
from kdtool.data.options import DataOptions
from kdtool.data.raw import RawData, RawSplit
from kdtool.data.spec import DataSpec
from kdtool.data.splits import Split
from kdtool.errors import Error, UsageError


def pixels(split, **how):
    """All images of a split in the order of their indices."""
    images = torch.empty(0)
    for indices, batch, labels in split.batches(100, **how):
        if not len(images):
            images = torch.empty(len(split), *batch.shape[1:])
        images[indices] = batch
        assert torch.equal(labels, split.labels[indices])
    return images


def open_digits(image_size=None, in_channels=None, **options):
    return open_data(DataOptions(data="digits", **options), image_size=image_size, in_channels=in_channels)


@pytest.fixture(scope="module")
def augmented():
    return open_digits()


def rows(split):
    return {tuple(image.flatten().tolist()) for image in pixels(split)}


def test_splits_are_stratified_and_apart(digits):
    assert (len(digits.train), len(digits.val), len(digits.test)) == (1295, 143, 359)
    for split in (digits.train, digits.val, digits.test):
        share = torch.bincount(split.labels) / len(split)
        assert share.min() > 0.08
        assert share.max() < 0.12
    parts = [rows(split) for split in (digits.train, digits.val, digits.test)]
    # 1,797 digits, all of them different: no image is in two splits.
    assert len(parts[0] | parts[1] | parts[2]) == 1797


def test_images_are_normalised_by_the_train_split(digits):
    images = pixels(digits.train)
    assert images.dtype == torch.float32
    assert float(images.mean()) == pytest.approx(0, abs=1e-4)
    assert float(images.std()) == pytest.approx(1, abs=1e-3)
    assert digits.spec.mean != open_digits(subset=0.05).spec.mean


def test_statistics_of_large_images_are_of_a_sample_of_the_whole_split(digits, monkeypatch):
    asked, batches = [], digits.train._images.batches
    monkeypatch.setattr(splits, "SMALL", 1)
    monkeypatch.setattr(splits, "SAMPLE", 10)
    monkeypatch.setattr(
        digits.train._images, "batches", lambda chunks, view: asked.extend(chunks) or batches(chunks, view)
    )
    digits.train.statistics()
    (indices,) = asked
    assert len(indices) == 10
    assert indices[-1] > 0.85 * len(digits.train)


def test_validation_and_test_are_the_same_for_every_subset(digits):
    for subset in (0.25, 0.01):
        part = open_digits(subset=subset, augment="none")
        part = part.normalised(digits.spec.mean, digits.spec.std)
        assert torch.equal(pixels(part.val), pixels(digits.val))
        assert torch.equal(pixels(part.test), pixels(digits.test))
        assert rows(part.train) < rows(digits.train)
        expected = [max(1, round(subset * count)) for count in torch.bincount(digits.train.labels).tolist()]
        assert torch.bincount(part.train.labels).tolist() == expected


def test_the_seed_moves_validation_but_never_test(digits):
    other = open_digits(split_seed=1, augment="none").normalised(digits.spec.mean, digits.spec.std)
    assert torch.equal(pixels(other.test), pixels(digits.test))
    assert rows(other.val) != rows(digits.val)
    assert len(open_digits(validation=0.3).val) > 2 * len(digits.val)


def test_a_view_is_the_same_in_any_order_and_batch_size(augmented):
    train = augmented.train
    shuffled = torch.randperm(len(train))
    expected = pixels(train, view=3)
    images = torch.empty_like(expected)
    for indices, batch, _ in train.batches(7, order=shuffled, view=3):
        images[indices] = batch
    assert torch.equal(images, expected)
    assert not torch.equal(pixels(train, view=4), expected)
    assert torch.equal(pixels(open_digits().train, view=3), expected)
    assert not torch.equal(pixels(open_digits(split_seed=1).train, view=3), expected)


def test_an_order_may_name_a_part_of_the_images(augmented):
    order = torch.tensor([5, 3, 5])
    ((indices, images, labels),) = augmented.train.batches(8, order=order)
    assert torch.equal(indices, order)
    assert torch.equal(images, pixels(augmented.train)[order])
    assert torch.equal(labels, augmented.train.labels[order])


def test_only_the_train_split_is_augmented(augmented, digits):
    assert not torch.equal(pixels(augmented.train, view=0), pixels(augmented.train))
    assert torch.equal(pixels(augmented.val, view=0), pixels(augmented.val))
    assert torch.equal(pixels(digits.train, view=0), pixels(digits.train))


def test_channels_last_changes_the_layout_alone():
    data = open_digits(in_channels=3)
    (_, plain, _), *_ = data.train.batches(8, view=1)
    (_, images, _), *_ = data.train.batches(8, view=1, channels_last=True)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, plain)


@pytest.mark.parametrize("size", [8, 20])
def test_sizes_and_channels(size):
    data = open_digits(image_size=size, in_channels=3)
    (_, images, _), *_ = data.train.batches(4, view=0)
    assert images.shape == (4, 3, size, size)
    assert (data.spec.image_size, data.spec.in_channels, len(data.spec.mean)) == (size, 3, 3)


def test_images_too_many_for_memory_are_resized_by_batch(monkeypatch):
    at_once = open_digits(image_size=24)
    monkeypatch.setattr(kdtool.data.images, "IN_MEMORY_BYTES", 1797 * 64)
    by_batch = open_digits(image_size=24).normalised(at_once.spec.mean, at_once.spec.std)
    assert torch.equal(pixels(by_batch.val), pixels(at_once.val))
    view = pixels(by_batch.train, view=1)
    assert view.shape == (1295, 1, 24, 24)
    assert not torch.equal(view, pixels(by_batch.train))


@pytest.mark.parametrize("augment", ["none", "standard"])
def test_a_spec_opens_the_same_data(augment):
    first = open_digits(subset=0.5, split_seed=2, image_size=10, in_channels=3, augment=augment)
    again = open_spec(DataSpec.from_data(first.spec.as_data()))
    assert again.spec == first.spec
    assert torch.equal(pixels(again.train, view=5), pixels(first.train, view=5))
    assert torch.equal(pixels(again.test), pixels(first.test))


def test_normalised_changes_the_numbers_and_not_the_images(digits):
    other = digits.normalised((0.5,), (0.25,))
    assert other.spec == dataclasses.replace(digits.spec, mean=(0.5,), std=(0.25,))
    expected = (pixels(digits.val) * digits.spec.std[0] + digits.spec.mean[0] - 0.5) / 0.25
    torch.testing.assert_close(pixels(other.val), expected)


def test_wrong_names_and_forms():
    with pytest.raises(UsageError, match="did you mean digits"):
        open_data(DataOptions(data="digit"))
    with pytest.raises(UsageError, match="name one with --data"):
        open_data(DataOptions())
    with pytest.raises(UsageError, match="digits: takes no argument"):
        open_data(DataOptions(data="digits:8"))
    with pytest.raises(UsageError, match="no option 'download'"):
        open_data(DataOptions(data="digits", download=True))


def test_a_spec_of_other_classes_is_refused(digits):
    other = dataclasses.replace(digits.spec, classes=("cat", "dog"))
    with pytest.raises(Error, match=r"digits: its classes are not .*: it lacks 'cat', 'dog', it adds '0'"):
        open_spec(other)


class Here(Dataset):
    """Stand for a data set that a plugin brings."""

    def load(self, argument, root):
        seen.append((argument, root))
        labels = torch.arange(12) % 2
        images = torch.arange(12, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 5, 4, 4)
        whole = RawSplit(images, labels)
        part = RawSplit(images[:2], labels[:2])
        return RawData(whole, part, None, ("a", "b"), channels=5, image_size=4, argument="elsewhere")


seen = []


@pytest.fixture
def here(monkeypatch):
    for module in ("kdtool.plugins.registry", "kdtool.data.dataset"):
        monkeypatch.setattr(f"{module}.method_class", lambda kind, name: Here)
    monkeypatch.delenv("KDTOOL_DATA", raising=False)
    seen.clear()


def test_an_own_validation_split_is_used_and_no_test_split_is_said(here):
    data = open_data(DataOptions(data="here:this"))
    assert (len(data.train), len(data.val), data.test) == (12, 2, None)
    assert data.spec.name == "here:elsewhere"
    assert data.split("val") is data.val
    with pytest.raises(UsageError, match="here:elsewhere: has no test split; it has train, val"):
        data.split("test")


def test_channels_that_cannot_be_had_are_refused_at_once(here):
    with pytest.raises(UsageError, match="--in-channels 3: the images have 5"):
        open_data(DataOptions(data="here"), in_channels=3)


def test_where_data_is_looked_for(here, tmp_path, monkeypatch):
    spec = open_data(DataOptions(data="here:this", data_dir=tmp_path)).spec
    assert spec.directory == str(tmp_path)
    monkeypatch.setenv("KDTOOL_DATA", "/from/environment")
    assert open_data(DataOptions(data="here:this")).spec.directory == "/from/environment"
    assert open_spec(spec).spec.directory == str(tmp_path)
    assert open_spec(spec, data_dir="/other").spec.directory == "/other"
    # The directory that is remembered may be gone, on another machine for one.
    gone = dataclasses.replace(spec, directory=str(tmp_path / "gone"))
    assert open_spec(gone).spec.directory == "/from/environment"
    roots = [str(root) for _, root in seen]
    assert roots == [str(tmp_path), "/from/environment", str(tmp_path), "/other", "/from/environment"]
    assert [argument for argument, _ in seen] == ["this", "this", "elsewhere", "elsewhere", "elsewhere"]


@pytest.mark.parametrize("sizes", [1, 7, 2000, [3, 1, 40, 2, 5]])
def test_batches_that_are_made_together_are_those_made_one_by_one(augmented, monkeypatch, sizes):
    order = torch.randperm(len(augmented.train), generator=torch.Generator().manual_seed(2))
    order = order[: sum(sizes) if isinstance(sizes, list) else 100]
    asked = []
    batches = augmented.train._images.batches
    monkeypatch.setattr(
        augmented.train._images, "batches", lambda chunks, view: asked.append(chunks) or batches(chunks, view)
    )
    made = []
    for together in (0, 64 * 20, 2**20):
        monkeypatch.setattr(splits, "TOGETHER_BYTES", together)
        made.append(list(augmented.train.batches(sizes, order=order, view=1, channels_last=True)))
    single, few, all_at_once = ([len(chunk) for chunk in chunks] for chunks in asked)
    assert single == [len(indices) for indices, _, _ in made[0]]
    assert max(few) <= max(20, *single)
    assert all_at_once == [len(order)]
    for rows in zip(*made, strict=True):
        for expected, same in zip(rows[0] * 2, rows[1] + rows[2], strict=True):
            assert torch.equal(expected, same)
            assert expected.stride() == same.stride()


def test_no_batches():
    assert splits._groups([], 10) == []
    assert splits._groups([4, 4, 4, 30, 1], 8) == [[4, 4], [4], [30], [1]]


def test_a_part_of_the_train_split_has_its_images_and_views_and_keeps_its_classes(augmented):
    part = augmented.part(0.25)
    assert part.val is augmented.val
    assert augmented.part(1.0) is augmented
    chosen = splits.stratified(augmented.train.labels, 0.25, splits.derive("part", augmented.spec.split_seed))
    assert len(part.train) == len(chosen) == pytest.approx(len(augmented.train) / 4, abs=5)
    counts = part.train.labels.bincount() / augmented.train.labels.bincount()
    assert counts.tolist() == pytest.approx([0.25] * 10, abs=0.01)
    for view in (None, 3):
        assert torch.equal(pixels(part.train, view=view), pixels(augmented.train, view=view)[chosen])
    assert rows(augmented.train.part(0.25, augmented.spec.split_seed + 1)) != rows(part.train)
    # It stays a part of the images where a recipe changes their views.
    plain = part.with_augmentation("none", 0.0)
    assert torch.equal(pixels(plain.train, view=3), pixels(augmented.train)[chosen])


def test_a_part_has_as_much_of_the_images_without_a_label(augmented):
    train = augmented.train
    labels = torch.cat([train.labels, torch.full([40], -1)])
    images = JoinedImages(train._images, splits.SelectedImages(train._images, torch.arange(40)))
    part = Split("train", images, labels, train.spec).part(0.25, 0)
    assert part.unlabelled == 10
    assert torch.equal(part.labels[-10:], torch.full([10], -1))
    assert part.labelled().labels.min() >= 0
    shown = pixels(part)
    first = pixels(train)[:40]
    assert all((first == image).flatten(1).all(1).any() for image in shown[-10:])
