"""TrivialAugment, RandAugment and random erasing: torchvision's, seeded by the image alone."""

import dataclasses
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import kdtool
from kdtool.data.changes import changes_of
from kdtool.data.deferred import Deferred
from kdtool.data.images import ChangedImages
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.data.spec import DataSpec
from kdtool.errors import UsageError
from kdtool.utils.seeds import derive

RANDOM = torch.Generator().manual_seed(0)


def images(count, channels=3, size=32):
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=RANDOM)


def by_hand(seed, view, index, image, *transforms):
    """Return what torchvision's own transforms make of one image, from the seed that `seed_of` documents."""
    torch.manual_seed(derive("changes", seed, view) ^ (index * 0x9E3779B97F4A7C15 % 2**63))
    for transform in transforms:
        image = transform(image)
    return image


@pytest.mark.parametrize(
    ("augment", "transform", "channels", "size"),
    [
        ("trivial", v2.TrivialAugmentWide(), 1, 28),
        ("rand", v2.RandAugment(), 3, 9),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                ("trivial", v2.TrivialAugmentWide(), 3, 9),
                ("trivial", v2.TrivialAugmentWide(), 3, 32),
                ("rand", v2.RandAugment(), 1, 28),
                ("rand", v2.RandAugment(), 3, 32),
            )
        ),
    ],
)
def test_they_are_torchvisions_and_depend_on_the_image_alone(augment, transform, channels, size):
    pixels, indices = images(150, channels, size), torch.randperm(60000, generator=RANDOM)[:150]
    state = torch.get_rng_state()
    changed = changes_of(3, augment, 0.5, (0.2,) * channels)(pixels, indices, view=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert changed.dtype == torch.uint8
    erasing = v2.RandomErasing(0.5, value=51)
    expected = [
        by_hand(3, 2, index, image, transform, erasing) for index, image in zip(indices.tolist(), pixels, strict=True)
    ]
    assert torch.equal(changed, torch.stack(expected))
    assert not torch.equal(changes_of(3, augment, 0.5, (0.2,) * channels)(pixels, indices, view=3), changed)


class Stored:
    """Images in memory, which count how many of them were asked for."""

    def __init__(self, pixels):
        self.pixels, self.asked = pixels, 0

    def __len__(self):
        return len(self.pixels)

    def batches(self, chunks, view):
        for chunk in chunks:
            self.asked += len(chunk)
            yield self.pixels[chunk]


@pytest.mark.parametrize("together", [0, 2**14, 2**24])
def test_a_view_is_the_same_in_any_order_batch_and_number_of_images_changed_together(together, monkeypatch):
    monkeypatch.setattr("kdtool.data.images.TOGETHER_BYTES", together)
    changes, stored = changes_of(0, "trivial", 0.25, (0.5,) * 3), Stored(images(100, size=8))
    expected = changes(stored.pixels, torch.arange(100), 1)
    order = torch.randperm(100, generator=RANDOM)
    for size in (1, 7, 100):
        batches = list(ChangedImages(stored, changes).batches(order.split(size), 1))
        assert [len(batch) for batch in batches] == [len(chunk) for chunk in order.split(size)]
        assert torch.equal(torch.cat(batches), expected[order])
    plain = ChangedImages(stored, changes).batches(order.split(7), None)
    assert torch.equal(torch.cat(list(plain)), stored.pixels[order])


def test_one_batch_does_not_wait_for_many():
    stored = Stored(images(100, size=8))
    next(ChangedImages(stored, changes_of(0, "rand", 0.0, (0.5,) * 3)).batches(torch.arange(100).split(4), 0))
    assert stored.asked == 4


def test_a_release_of_torchvision_without_that_method_changes_images_at_once():
    image = images(1)[0]
    deferred = Deferred(v2.RandAugment(), "_not_there")
    torch.manual_seed(1)
    expected = v2.RandAugment()(image)
    torch.manual_seed(1)
    assert deferred.draw(image) == []
    assert torch.equal(image, expected)


def test_worker_processes_get_the_changes_without_torchvisions_transforms():
    changes = changes_of(0, "rand", 0.5, (0.5,))
    changes.load()
    copied = pickle.loads(pickle.dumps(changes))
    assert copied == changes
    assert set(vars(copied)) == {"seed", "augment", "erase", "fill"}


@pytest.mark.parametrize("augment", ["trivial", "rand"])
def test_other_channels_are_refused(augment):
    with pytest.raises(UsageError, match=f"--augment {augment}: is for images of 1 channel or 3, and these have 4"):
        open_data(DataOptions(data="digits", augment=augment), in_channels=4)
    erased = open_data(DataOptions(data="digits", erase=1.0), in_channels=4)
    assert next(iter(erased.train.batches(2, view=0)))[1].shape == (2, 4, 8, 8)


def test_views_are_many():
    changes, pixels = changes_of(0, "trivial", 0.0, (0.5,) * 3), images(1).expand(200, -1, -1, -1)
    changed = changes(pixels, torch.arange(200), view=0)
    assert len({image.numpy().tobytes() for image in changed}) > 120


def test_erasing_fills_a_part_with_the_mean():
    changes = changes_of(0, "standard", 1.0, (0.2, 0.4, 0.6))
    pixels = torch.zeros(50, 3, 32, 32, dtype=torch.uint8)
    changed = changes(pixels, torch.arange(50), view=0)
    filled = (changed == torch.tensor([51, 102, 153], dtype=torch.uint8).view(1, 3, 1, 1)).all(1).float().mean((1, 2))
    assert ((filled > 0.015) & (filled < 0.36)).all()
    # Of a rectangle whose corners are whole pixels.
    for image in changed[:5].ne(0).any(1):
        rows, columns = image.any(1), image.any(0)
        assert image.sum() == rows.sum() * columns.sum()
    some = changes_of(0, "standard", 0.5, (0.2, 0.4, 0.6))(pixels, torch.arange(50), view=0)
    assert 10 < some.flatten(1).any(1).sum() < 40


def test_no_changes():
    assert changes_of(0, "standard", 0.0, (0.5,)) is None
    assert changes_of(0, "none", 0.0, (0.5,)) is None


def fill(folder, side, count=12):
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return f"folder:{folder}"


@pytest.mark.parametrize("side", [None, 12, 80])
def test_views_of_a_data_set(side, tmp_path):
    data = "digits" if side is None else fill(tmp_path, side)
    plain = open_data(DataOptions(data=data, augment="none"))
    assert not plain.train.augmented
    changed = plain.with_augmentation("trivial", 0.25)
    assert (changed.spec.augment, changed.spec.erase, changed.train.augmented) == ("trivial", 0.25, True)
    assert changed.spec.splits == plain.spec.splits
    again = open_data(DataOptions(data=data, augment="trivial", erase=0.25))
    order = torch.tensor([5, 1, 7, 3])

    def view(opened, number, batch_size=4):
        return torch.cat([batch[1] for batch in opened.train.batches(batch_size, order=order, view=number)])

    assert torch.equal(view(changed, 3), view(again, 3))
    assert torch.equal(view(changed, 3), view(changed, 3, batch_size=1))
    assert not torch.equal(view(changed, 3), view(changed, 4))
    assert torch.equal(view(changed, None), view(plain, None))
    assert torch.equal(*(next(iter(opened.val.batches(4)))[1] for opened in (changed, plain)))
    assert plain.with_augmentation("none", 0.0) is plain
    # After the crops and mirrors of `standard`.
    standard = plain.with_augmentation("standard", 0.0)
    pixels = next(iter(standard.train._images.batches([order], 3)))
    expected = changes_of(0, "trivial", 0.25, plain.spec.mean)(pixels, order, 3)
    assert torch.equal(next(iter(changed.train._images.batches([order], 3))), expected)


def test_erasing_alone_and_what_is_erased_is_zero_for_the_network(digits):
    erased = digits.with_augmentation("none", 1.0)
    assert erased.train.augmented
    views = next(iter(erased.train.batches(50, view=0)))[1]
    plain = next(iter(digits.train.batches(50)))[1]
    part = views != plain
    assert ((views[part].abs() * digits.spec.std[0]) <= 0.5 / 255 + 1e-6).all()
    assert (part.flatten(1).float().mean(1) < 0.4).all()
    assert torch.equal(next(iter(erased.train.batches(50)))[1], plain)
    # What is erased follows another mean.
    other = erased.normalised((0.9,), (1.0,))
    views = next(iter(other.train.batches(50, view=0)))[1]
    assert (views[part].abs() <= 0.5 / 255 + 1e-6).all()


@pytest.mark.parametrize("name", ["digits", "folder"])
@pytest.mark.parametrize("size", [None, 16])
def test_another_augmentation_reads_and_resizes_nothing_again(name, size, tmp_path):
    opened = open_data(DataOptions(data=name if name == "digits" else fill(tmp_path / "pets", 12)), image_size=size)
    opened.train.prepare()
    if name == "folder":
        shutil.rmtree(tmp_path / "pets")
    changed = opened.with_augmentation("rand", 0.5)
    stored = changed.train._images.images.plain
    assert stored is opened.train._images.plain
    assert "pixels" in vars(stored)
    assert len(list(changed.train.batches(4, view=1))) > 1


def test_images_without_labels_are_changed_too(tmp_path):
    more = fill(tmp_path / "more", 12, count=3)
    options = DataOptions(data=fill(tmp_path / "pets", 12), unlabelled=more, augment="none")
    data = open_data(options)
    changed = data.with_augmentation("trivial", 1.0)
    assert changed.unlabelled == more
    assert changed.train.unlabelled == 6
    plain, views = (next(iter(opened.train.batches(100, view=1)))[1] for opened in (data, changed))
    assert len(views) == len(data.train)
    assert (views != plain).flatten(1).any(1).all()


def test_a_run_goes_on_with_the_same_augmentation_only(tmp_path):
    options = {"data": "digits", "subset": 0.1, "epochs": 1, "output": tmp_path / "a.pt", "device": "cpu"}
    kdtool.teacher("kdtool:conv4-fc2", **options, augment="none")
    for key, value in (("augment", "trivial"), ("erase", 0.25)):
        with pytest.raises(UsageError, match=f"--resume needs the same command: data.{key} was"):
            kdtool.teacher("kdtool:conv4-fc2", **options, **{"augment": "none", key: value}, resume=True)


def test_descriptions_of_earlier_releases_have_no_erasing(digits):
    content = digits.spec.as_data()
    assert dataclasses.replace(digits.spec, erase=0.5).as_data()["erase"] == 0.5
    del content["erase"]
    assert DataSpec.from_data(content) == digits.spec
