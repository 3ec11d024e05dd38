"""Fingerprints of splits, and what changed between two."""

from pathlib import Path

import pytest
import torch

from kdtool.data.file_index import FileInfo
from kdtool.data.fingerprint import changes, checked, duplicates, fingerprint_of, learned_from, moved
from kdtool.data.raw import RawSplit
from kdtool.errors import Error

CLASSES = ("cat", "dog")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def split(contents, root="/data"):
    """A split of files: by key, the content; the class is the first part of the key."""
    keys = tuple(contents)
    labels = torch.tensor([CLASSES.index(key.split("/")[0]) for key in keys])
    return RawSplit(tuple(Path(root, key) for key in keys), labels, keys)


def infos(contents):
    return [FileInfo(content.encode().ljust(16), 8, 8, "L", None, "") for content in contents.values()]


def fingerprint(contents, root="/data"):
    return fingerprint_of(split(contents, root), CLASSES, infos(contents))


FILES = {"cat/1.png": "a", "cat/2.png": "b", "dog/1.png": "c"}


def test_it_depends_on_names_contents_and_classes_alone():
    expected = fingerprint(FILES)
    assert expected["images"] == 3
    assert fingerprint(FILES, root="/elsewhere") == expected
    assert fingerprint(dict(reversed(FILES.items()))) == expected
    swapped = fingerprint_of(split(FILES), CLASSES[::-1], infos(FILES))
    assert swapped != expected
    other_order = RawSplit(split(FILES).images, 1 - split(FILES).labels, tuple(FILES))
    assert fingerprint_of(other_order, CLASSES[::-1], infos(FILES)) == expected
    renamed = {key.replace("2", "7"): content for key, content in FILES.items()}
    for changed in ({**FILES, "cat/1.png": "x"}, {**FILES, "cat/3.png": "a"}, dict(list(FILES.items())[1:]), renamed):
        assert fingerprint(changed) != expected


def test_images_in_memory_are_hashed_with_their_labels():
    images = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2)
    labels = torch.tensor([0, 1, 1])
    expected = fingerprint_of(RawSplit(images, labels), CLASSES, None)
    assert fingerprint_of(RawSplit(images.clone(), labels.clone()), CLASSES, None) == expected
    other = images.clone()
    other[2, 0, 1, 1] += 1
    assert fingerprint_of(RawSplit(other, labels), CLASSES, None) != expected
    assert fingerprint_of(RawSplit(images.view(3, 1, 4, 1), labels), CLASSES, None) != expected
    assert fingerprint_of(RawSplit(images, 1 - labels), CLASSES, None) != expected
    assert fingerprint_of(RawSplit(images, 1 - labels), CLASSES[::-1], None) == expected


def test_changes_are_told_file_by_file():
    before = {"train": fingerprint(FILES)}
    now = {"train": fingerprint({"cat/1.png": "a", "cat/2.png": "x", "dog/2.png": "d", "dog/3.png": "e"})}
    assert changes(before, now) == ["train: 1 gone (dog/1.png), 2 added (dog/2.png, ...), 1 changed (cat/2.png)"]
    assert changes(before, before) == []
    assert changes(before, {"test": fingerprint({"cat/8.png": "new"})}) == []


def test_images_that_were_learned_from_and_are_now_held_out_are_counted():
    before = {"train": fingerprint(FILES), "test": fingerprint({"cat/9.png": "z"})}
    now = {"train": fingerprint({"cat/1.png": "a"}), "test": fingerprint({"cat/9.png": "z", "dog/1.png": "c"})}
    assert learned_from(before, now) == {"test": 1}
    assert learned_from(before, before) == {}
    assert learned_from({"train": before["train"]}, {"val": now["test"]}) == {"val": 1}


def test_without_the_lists_of_files_the_numbers_are_told(cache):
    before, now = {"train": fingerprint(FILES)}, {"train": fingerprint({"cat/1.png": "a"})}
    same_size = {"train": fingerprint({**FILES, "cat/1.png": "q"})}
    for file in (cache / "splits").iterdir():
        file.write_bytes(b"damaged")
    assert changes(before, now) == ["train: 1 images, 3 before"]
    assert changes(before, same_size) == ["train: other images or labels, as many as before (3)"]


def test_images_of_other_splits_are_not_those_that_moved():
    prints = {"train": fingerprint(FILES), "val": fingerprint({"cat/9.png": "z"})}
    before, now = ({"data": {"name": f"folder:/{name}", "splits": dict(prints)}} for name in ("before", "now"))
    assert moved(before, now)["data"]["name"] == "folder:/now"
    del now["data"]["splits"]["train"]
    assert moved(before, now)["data"]["name"] == "folder:/before"


def test_duplicates_within_and_across_splits():
    train = {"cat/1.png": "a", "cat/2.png": "b", "dog/1.png": "b"}
    test = {"cat/7.png": "a", "dog/8.png": "b", "dog/9.png": "c"}
    entries = duplicates({"train": (split(train), infos(train)), "test": (split(test), infos(test))})
    within, across = entries
    assert within == {"in": "train", "of": "train", "images": 1, "first": "cat/2.png", "second": "dog/1.png"}
    assert (across["in"], across["of"], across["images"]) == ("train", "test", 2)
    assert (across["first"], across["second"]) == ("cat/1.png", "cat/7.png")
    assert duplicates({"test": (split({"cat/1.png": "a"}), infos({"cat/1.png": "a"}))}) == []


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"train": 1},
        {"train": {"images": 1}},
        {"train": {"images": "1", "hash": "0" * 32}},
        {"train": {"images": 1, "hash": "../../../../../../etc/passwd____"}},
        {"train": {"images": 1, "hash": "0" * 33}},
        {str(number): {"images": 1, "hash": "0" * 32} for number in range(9)},
    ],
)
def test_malformed_fingerprints_are_refused(content):
    with pytest.raises(Error, match="malformed"):
        checked(content)
