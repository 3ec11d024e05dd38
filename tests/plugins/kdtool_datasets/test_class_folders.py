"""Each real file counts once; links and copies of names are told apart."""

import os

import pytest

from kdtool.errors import Error
from kdtool_datasets.folder import Folder


def touch(root, *keys):
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(key.encode())
    return root


def load(root):
    return Folder().load(str(root), None)


@pytest.fixture
def pets(tmp_path):
    return touch(tmp_path / "pets", "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")


def test_keys_are_paths_below_the_folder_and_stay_where_it_is_moved(pets, tmp_path):
    keys = load(pets).train.keys
    assert keys == ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
    pets.rename(tmp_path / "moved")
    assert load(tmp_path / "moved").train.keys == keys


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_a_link_within_a_class_adds_no_image_and_changes_no_key(pets, make):
    make(pets / "cat/2.png", pets / "cat/9.png")
    raw = load(pets)
    assert raw.train.keys == ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
    assert raw.notes == ("1 image counted once, being links to others (cat/9.png)",)


def test_the_real_file_keeps_its_name_as_the_key_where_a_link_comes_first(pets):
    (pets / "cat/0.png").symlink_to("2.png")
    assert load(pets).train.keys == ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_the_same_file_in_two_classes_is_refused(pets, make):
    make(pets / "cat/2.png", pets / "dog/x.png")
    with pytest.raises(Error, match=r"cat/2\.png and dog/x\.png are the same file in two classes; remove one of them"):
        load(pets)


def test_the_same_file_in_two_splits_is_refused(tmp_path):
    touch(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/dog/1.png")
    (tmp_path / "test").symlink_to("val")
    with pytest.raises(Error, match=r"val/cat/1\.png and test/cat/1\.png are the same file in two splits"):
        load(tmp_path)


def test_links_from_a_pool_of_images_are_a_data_set(tmp_path):
    touch(tmp_path, *[f"pool/{number}.png" for number in range(8)])
    for number in range(8):
        folder = tmp_path / ("train", "test")[number // 4] / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").symlink_to(f"../../pool/{number}.png")
    raw = load(tmp_path)
    assert raw.train.keys == ("train/cat/0.png", "train/cat/2.png", "train/dog/1.png", "train/dog/3.png")
    assert raw.notes == ("left out pool with 8 images, being neither a split nor a class",)


def test_a_link_to_a_folder_above_multiplies_nothing(pets):
    (pets / "cat/up").symlink_to("..")
    raw = load(pets)
    assert len(raw.train) == 4
    assert raw.notes == ("did not follow 1 link to a folder above (cat/up)",)


def test_images_without_labels_follow_the_same_rules(pets, caplog):
    touch(pets, "cat/more/3.png", "4.png", "notes.txt", "5.heic")
    (pets / "dog/up").symlink_to("..")
    (pets / "dog/link.png").symlink_to("../cat/1.png")
    paths = Folder().images(str(pets), None)
    assert [path.relative_to(pets).as_posix() for path in paths] == [
        "4.png", "cat/1.png", "cat/2.png", "cat/more/3.png", "dog/1.png", "dog/2.png"
    ]  # fmt: skip
    text = caplog.text
    for line in (".heic 1", ".txt 1", "did not follow 1 link", "1 image counted once, being links to others (dog/link"):
        assert line in text


def test_class_names_with_any_character(tmp_path):
    names = ["a\nb", "\x1b[31mred", "写真\u3000二", "x\u00a0y", "emoji \U0001f431"]
    touch(tmp_path, *[f"{name}/{number}.png" for name in names for number in range(2)], "a\nb/note.\x1b[31mtxt")
    raw = load(tmp_path)
    assert list(raw.classes) == sorted(names)
    assert all(line.isprintable() for line in raw.notes)


def test_a_class_name_that_is_no_unicode_is_refused(pets):
    try:
        os.mkdir(os.fsencode(pets) + b"/caf\xe9")
    except OSError:
        pytest.skip("the file system has Unicode names only")
    with open(os.fsencode(pets) + b"/caf\xe9/1.png", "wb"):
        pass
    with pytest.raises(Error, match=r"the class 'caf\?' is not valid UTF-8; rename it"):
        load(pets)
