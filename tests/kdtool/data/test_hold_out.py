"""Which images are held out."""

import hashlib
import math
import unicodedata

import pytest
import torch
from torch.overrides import TorchFunctionMode

from kdtool.data.hold_out import hashed, place, stratified
from kdtool.data.raw import RawSplit
from kdtool.utils.seeds import derive


class Elements(TorchFunctionMode):
    """Counts the elements of all tensors that are made."""

    made = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        self.made += result.numel() if isinstance(result, torch.Tensor) else 0
        return result


def keys_of(classes, images):
    return [f"{label}/{number:04d}.png" for label in range(classes) for number in range(images)]


def labels_of(keys):
    return torch.tensor([int(key.split("/")[0]) for key in keys])


def chosen(keys, fraction, seed=0, leave=1, purpose="test"):
    return {keys[index] for index in hashed(keys, labels_of(keys), fraction, seed, purpose, leave=leave).tolist()}


def of_hash(text):
    return int(hashlib.blake2b(text, digest_size=8).hexdigest(), 16) / 2**64


@pytest.mark.parametrize(("purpose", "root"), [("test", (1 + 5**0.5) / 2), ("validation", 2**0.5), ("subset", 3**0.5)])
def test_a_place_is_a_hash_and_a_multiple_of_an_irrational_number(purpose, root):
    assert place("cat/photo.png", 7, purpose) == of_hash(b"7 cat/photo.png")
    expected = (of_hash(b"7 cat/a12_#b.png") + 34 * root) % 1
    assert place("cat/a12_034b.png", 7, purpose) == pytest.approx(expected, abs=1e-12)
    assert place("cat/photo.png", 7, purpose) != place("cat/photo.png", 8, purpose)
    # A number of 32 digits is a hash.
    long = "0123456789" * 3 + "01"
    assert place(f"{long}.png", 0, purpose) == of_hash(f"0 {long}.png".encode())


def test_the_unicode_form_of_a_path_does_not_matter():
    name = "caf\u00e9/1.png"
    assert place(unicodedata.normalize("NFD", name), 0, "test") == place(name, 0, "test")
    assert 0 <= place("a\udcff.png", 0, "test") < 1  # not valid UTF-8 on disk


def test_a_file_more_or_less_moves_no_other():
    keys = keys_of(3, 200)
    before = chosen(keys, 0.2)
    for gone in (keys[0], min(before), keys[-1]):
        assert chosen([key for key in keys if key != gone], 0.2) == before - {gone}
    more = [*keys, *(f"{label}/new{number}.png" for label in range(3) for number in range(50))]
    assert {key for key in chosen(more, 0.2) if "new" not in key} == before


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("images", [20, 100, 1000])
def test_numbered_files_have_very_nearly_the_share_in_every_class(fraction, images):
    for seed in range(5):
        held = chosen(keys_of(4, images), fraction, seed)
        for label in range(4):
            count = sum(key.startswith(f"{label}/") for key in held)
            assert abs(count - images * fraction) <= 3


def test_names_without_numbers_have_about_the_share():
    keys = [f"0/{hashlib.sha256(str(number).encode()).hexdigest()}.png" for number in range(2000)]
    # Five standard deviations of a binomial distribution.
    assert abs(len(chosen(keys, 0.2)) - 400) < 5 * math.sqrt(2000 * 0.2 * 0.8)


@pytest.mark.parametrize("stride", [1, 2, 5, 10, 12])
def test_every_nth_file_has_the_share_too(stride):
    """Files of one kind may come in turns: ten views of each object, five frames of each second."""
    keys = [f"0/{number:05d}.png" for number in range(0, 200 * stride, stride)]
    assert abs(len(chosen(keys, 0.2)) - 40) <= 6


def test_what_is_held_out_for_one_purpose_is_independent_of_the_other():
    keys = keys_of(1, 1000)
    for seed in range(5):
        test = chosen(keys, 0.2, 0)
        both = test & chosen(keys, 0.2, seed, purpose="validation")
        assert abs(len(both) - 40) < 20
        assert abs(len(test & chosen(keys, 0.5, seed, purpose="subset")) - 100) < 30


def test_a_smaller_fraction_takes_a_part_of_a_larger_one():
    keys = keys_of(2, 300)
    small, middle, large = (chosen(keys, fraction, leave=0, purpose="subset") for fraction in (0.1, 0.3, 0.8))
    assert small < middle < large


def test_every_class_gets_one_and_keeps_one():
    keys = [*keys_of(3, 4), "3/only.png"]
    few = chosen(keys, 1e-6)
    assert sorted(key[0] for key in few) == ["0", "1", "2"]
    for key in few:  # the one with the lowest place
        assert place(key, 0, "test") == min(place(other, 0, "test") for other in keys if other[0] == key[0])
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


@pytest.mark.parametrize("leave", [0, 1])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.99])
def test_the_images_are_those_that_are_found_class_by_class(fraction, leave):
    """Classes of any size, some missing; -1 has no label; equal keys have the same place."""
    generator = torch.Generator().manual_seed(0)
    for seed in range(5):
        labels = torch.randint(-1, 40, (100,), generator=generator)
        keys = [f"{number}.png" for number in torch.randint(0, 30, (100,), generator=generator).tolist()]
        places = [place(key, seed, "test") for key in keys]
        draws = torch.Generator().manual_seed(derive("stratified", seed))
        by_order, by_path = [], []
        for label in sorted({*labels.tolist()}):
            members = [index for index in range(100) if labels[index] == label]
            count = min(max(1, round(fraction * len(members))), len(members) - leave)
            by_order += [members[index] for index in torch.randperm(len(members), generator=draws)[:count].tolist()]
            count = min(max(1, sum(places[index] < fraction for index in members)), len(members) - leave)
            by_path += sorted(members, key=places.__getitem__)[:count]
        assert stratified(labels, fraction, seed, leave=leave).tolist() == sorted(by_order)
        assert hashed(keys, labels, fraction, seed, "test", leave=leave).tolist() == sorted(by_path)


def test_all_images_are_not_looked_through_for_each_class():
    labels = torch.arange(3000) % 1000
    with Elements() as elements:
        stratified(labels, 0.3, 0)
        hashed([f"{index}.png" for index in range(3000)], labels, 0.3, 0, "test")
    assert elements.made < 30 * 3000
