"""Which images are held out."""

import hashlib
import math
import unicodedata

import pytest
import torch

from kdtool.data.hold_out import hashed, place
from kdtool.data.raw import RawSplit


def keys_of(classes, images):
    return [f"{label}/{number:04d}.png" for label in range(classes) for number in range(images)]


def labels_of(keys):
    return torch.tensor([int(key.split("/")[0]) for key in keys])


def chosen(keys, fraction, seed=0, leave=1):
    return {keys[index] for index in hashed(keys, labels_of(keys), fraction, seed, leave=leave).tolist()}


def test_a_place_is_the_hash_of_the_seed_and_the_path():
    digest = hashlib.blake2b(b"7 cat/001.png", digest_size=8).hexdigest()
    assert place("cat/001.png", 7) == int(digest, 16) / 2**64
    assert place("cat/001.png", 7) != place("cat/001.png", 8)


def test_the_unicode_form_of_a_path_does_not_matter():
    name = "caf\u00e9/1.png"
    assert place(unicodedata.normalize("NFD", name), 0) == place(name, 0)
    assert 0 <= place("a\udcff.png", 0) < 1  # not valid UTF-8 on disk


def test_a_file_more_or_less_moves_no_other():
    keys = keys_of(3, 200)
    before = chosen(keys, 0.2)
    for gone in (keys[0], min(before), keys[-1]):
        assert chosen([key for key in keys if key != gone], 0.2) == before - {gone}
    more = [*keys, *(f"{label}/new{number}.png" for label in range(3) for number in range(50))]
    assert {key for key in chosen(more, 0.2) if "new" not in key} == before


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.2, 0.5, 0.9])
def test_the_share_is_about_the_fraction_in_every_class(fraction):
    keys = keys_of(4, 1000)
    held = chosen(keys, fraction)
    for label in range(4):
        count = sum(key.startswith(f"{label}/") for key in held)
        # Five standard deviations of a binomial distribution.
        assert abs(count - 1000 * fraction) < 5 * math.sqrt(1000 * fraction * (1 - fraction))


def test_a_smaller_fraction_takes_a_part_of_a_larger_one():
    keys = keys_of(2, 300)
    assert chosen(keys, 0.1, leave=0) < chosen(keys, 0.3, leave=0) < chosen(keys, 0.8, leave=0)


def test_every_class_gets_one_and_keeps_one():
    keys = [*keys_of(3, 4), "3/only.png"]
    few = chosen(keys, 1e-6)
    assert sorted(key[0] for key in few) == ["0", "1", "2"]
    for key in few:  # the one with the lowest place
        assert place(key, 0) == min(place(other, 0) for other in keys if other[0] == key[0])
    rest = set(keys) - chosen(keys, 1 - 1e-6)
    assert sorted(key[0] for key in rest) == ["0", "1", "2", "3"]


def test_order_and_path_are_two_rules_for_the_same_images():
    keys = keys_of(2, 100)
    images = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1)
    split = RawSplit(images, labels_of(keys), tuple(keys))
    assert split.split_by == "path"
    by_path, by_order = split.hold_out(0.2, 0), split.hold_out(0.2, 0, "order")
    assert set(by_path[1].keys) == chosen(keys, 0.2)
    assert len(by_order[1]) == 40
    assert set(by_order[1].keys) != set(by_path[1].keys)
    plain = RawSplit(images, labels_of(keys)).hold_out(0.2, 0)
    assert torch.equal(plain[1].images, by_order[1].images)
