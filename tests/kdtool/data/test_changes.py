"""TrivialAugment, RandAugment and random erasing: torchvision's, seeded by the image alone."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from kdtool.data.changes import Changes, changes_of
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.data.spec import DataSpec

RANDOM = torch.Generator().manual_seed(0)


def images(count=6, channels=3, size=32):
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=RANDOM)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("augment", "transform"), [("trivial", v2.TrivialAugmentWide()), ("rand", v2.RandAugment())])
def test_they_are_torchvisions_and_depend_on_the_image_alone(augment, transform, channels):
    pixels, changes = images(channels=channels), changes_of(3, augment, 0.0, (0.5,) * channels)
    indices = torch.tensor([4, 900, 2, 7, 5, 0])
    state = torch.get_rng_state()
    changed = changes(pixels, indices, view=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, pixels)
    # In any other batch an image is changed in the same way.
    assert torch.equal(changes(pixels[[3]], indices[[3]], view=2)[0], changed[3])
    assert not torch.equal(changes(pixels, indices, view=3), changed)
    # Whatever is drawn, it is drawn by torchvision's own transform.
    monkey = Changes(3, augment, 0.0, ())
    monkey.__dict__["_transforms"] = [transform]
    assert torch.equal(monkey(pixels, indices, view=2), changed)


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
    some = changes_of(0, "standard", 0.5, (0.2, 0.4, 0.6))(pixels, torch.arange(50), view=0)
    assert 10 < some.flatten(1).any(1).sum() < 40


def test_no_changes():
    assert changes_of(0, "standard", 0.0, (0.5,)) is None
    assert changes_of(0, "none", 0.0, (0.5,)) is None


@pytest.mark.parametrize("name", ["digits", "mnist-like"])
def test_views_of_a_data_set(name, tmp_path):
    data = "digits"
    if name != "digits":
        for label in ("a", "b"):
            (tmp_path / label).mkdir()
            for number in range(12):
                pixels = np.random.default_rng(number).integers(0, 256, (80, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
        data = f"folder:{tmp_path}"
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


def test_descriptions_of_earlier_releases_have_no_erasing(digits):
    content = digits.spec.as_data()
    assert dataclasses.replace(digits.spec, erase=0.5).as_data()["erase"] == 0.5
    del content["erase"]
    assert DataSpec.from_data(content) == digits.spec
