"""Views: pure functions of seed, number and index, equal to the plain loops they replace."""

import pytest
import torch
from torch.nn import functional as F

from kdtool.data.augmentation import AREA, RATIO, Crop, crop_of, crops, shifted, shifts


@pytest.mark.parametrize(("channels", "padding"), [(1, 1), (3, 4), (3, 0)])
def test_shifted_crops_and_mirrors_each_image(channels, padding):
    images = torch.randint(0, 256, (40, channels, 9, 7), dtype=torch.uint8)
    view = shifts(50, seed=1, view=2, padding=padding, flip=True)
    indices = torch.randperm(50)[:40]
    got = shifted(images, indices, view, padding)
    for image, index, result in zip(images, indices, got, strict=True):
        top, left = view.top[index], view.left[index]
        expected = F.pad(image, (padding,) * 4)[:, top : top + 9, left : left + 7]
        assert torch.equal(result, expected.flip(-1) if view.mirrored[index] else expected)


def test_shifts_cover_every_place_and_half_are_mirrored():
    view = shifts(4000, seed=0, view=0, padding=2, flip=True)
    assert view.top.unique().tolist() == view.left.unique().tolist() == [0, 1, 2, 3, 4]
    assert 0.45 < view.mirrored.float().mean() < 0.55
    # The two directions are drawn apart.
    assert abs(torch.corrcoef(torch.stack([view.top, view.left]).float())[0, 1]) < 0.05


def test_every_image_is_mirrored_in_every_other_view():
    views = [shifts(100, seed=0, view=view, padding=2, flip=True).mirrored for view in range(4)]
    assert torch.equal(views[1], ~views[0])
    assert torch.equal(views[2], views[0])
    assert torch.equal(views[3], views[1])
    rows = [crops(100, 0, view, flip=True)[:, 4].bool() for view in range(2)]
    assert torch.equal(rows[1], ~rows[0])
    assert not torch.equal(views[0], shifts(100, seed=1, view=0, padding=2, flip=True).mirrored)


def test_nothing_is_mirrored_without_flip():
    assert not shifts(100, seed=0, view=0, padding=2, flip=False).mirrored.any()


def test_a_view_repeats_and_another_seed_or_view_differs():
    def top(seed, view):
        return shifts(100, seed=seed, view=view, padding=2, flip=True).top

    assert torch.equal(top(0, 0), top(0, 0))
    assert not torch.equal(top(0, 0), top(0, 1))
    assert not torch.equal(top(0, 0), top(1, 0))


def test_drawing_leaves_the_global_random_numbers_alone():
    before = torch.random.get_rng_state()
    shifts(10, seed=0, view=0, padding=2, flip=True)
    crops(10, seed=0, view=0, flip=True)
    assert torch.equal(before, torch.random.get_rng_state())


def test_crops_stay_in_the_image_and_have_their_area_and_ratio():
    drawn = crops(500, seed=0, view=0, flip=True)
    mirrored = 0
    for row in drawn:
        crop = crop_of(row)
        left, top, right, bottom = crop.box(400, 400)
        assert 0 <= left < right <= 400 + 1e-9
        assert 0 <= top < bottom <= 400 + 1e-9
        assert AREA[0] <= crop.area <= AREA[1]
        assert RATIO[0] <= crop.ratio <= RATIO[1]
        mirrored += crop.mirrored
    assert 200 < mirrored < 300


def test_box_of_known_numbers():
    assert Crop(0.25, 1.0, left=0.5, top=1.0, mirrored=False).box(100, 100) == (25, 50, 75, 100)
    # A crop that would be wider than the image is as wide as it.
    assert Crop(1.0, 4 / 3, left=0.5, top=0.5, mirrored=False).box(100, 100) == pytest.approx(
        (0, 6.7, 100, 93.3), abs=0.1
    )
