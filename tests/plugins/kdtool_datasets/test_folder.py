"""Folders of images in the layouts that people use."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdtool.data.opening import open_data, open_spec
from kdtool.data.options import DataOptions
from kdtool.errors import Error, UsageError
from kdtool.testing.checks import check_dataset
from kdtool_datasets.folder import Folder


def fill(folder, counts, size=(12, 12), mode="RGB"):
    """Write ``counts[name]`` images per class, each with its own shade of gray."""
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            gray = np.full((size[1], size[0]), 60 * number + index, np.uint8)
            Image.fromarray(gray).convert(mode).save(folder / name / f"{index:03}.png")
    return folder


def opened(path, **options):
    return open_data(DataOptions(data=f"folder:{path}", **options))


def test_class_folders_alone_get_a_fixed_test_split(tmp_path):
    fill(tmp_path, {"cat": 40, "dog": 30})
    check_dataset(Folder, argument=str(tmp_path))
    raw = Folder().load(str(tmp_path), None)
    assert raw.classes == ("cat", "dog")
    assert (raw.val, raw.test, raw.test_fraction) == (None, None, 0.2)
    assert raw.train.keys[:2] == ("cat/000.png", "cat/001.png")
    assert [path.parent.name for path in raw.train.images] == [raw.classes[label] for label in raw.train.labels]
    first, again = opened(tmp_path), opened(tmp_path, split_seed=5)
    assert first.spec.splits["test"] == again.spec.splits["test"]
    assert 6 <= len(first.test) <= 24
    assert first.test.labels.unique().tolist() == [0, 1]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_split_folders(tmp_path, name):
    fill(tmp_path / "train", {"cat": 6, "dog": 6})
    fill(tmp_path / name, {"cat": 2, "dog": 3})
    fill(tmp_path / "test", {"dog": 4})
    (tmp_path / "test/cat").mkdir()
    data = opened(tmp_path, augment="none")
    assert (len(data.train), len(data.val), len(data.test)) == (12, 5, 4)
    assert data.test.labels.tolist() == [1, 1, 1, 1]


def test_train_and_val_alone_have_no_test_split(tmp_path):
    fill(tmp_path / "train", {"cat": 6, "dog": 6})
    fill(tmp_path / "val", {"cat": 2, "dog": 3})
    with pytest.raises(UsageError, match="has no test split; it has train, val"):
        opened(tmp_path).split("test")


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, {"bus": 4, "train": 4})
    assert opened(tmp_path).spec.classes == ("bus", "train")


def test_what_is_no_image_is_left_alone(tmp_path):
    fill(tmp_path, {"cat": 5, "dog": 5})
    fill(tmp_path / "cat", {"indoors": 1})
    (tmp_path / "cat/notes.txt").write_text("a cat")
    (tmp_path / "cat/._000.png").write_text("what a Mac leaves behind")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "list.csv").write_text("")
    data = opened(tmp_path)
    assert data.spec.classes == ("cat", "dog")
    assert len(data.train) + len(data.val) + len(data.test) == 11


@pytest.mark.parametrize(
    ("size", "mode", "expected"),
    [((12, 12), "RGB", (12, 3)), ((12, 12), "L", (12, 1)), ((16, 12), "RGB", (224, 3)), ((80, 80), "L", (224, 1))],
)
def test_size_and_channels_are_those_of_small_images(tmp_path, size, mode, expected):
    spec = opened(fill(tmp_path, {"cat": 30, "dog": 30}, size, mode)).spec
    assert (spec.image_size, spec.in_channels) == expected


@pytest.mark.parametrize("size", [12, 9, 72])
def test_images_belong_to_their_labels(tmp_path, size):
    data = open_data(DataOptions(data=f"folder:{fill(tmp_path, {'cat': 20, 'dog': 20})}"), image_size=size)
    for split in (data.train, data.val, data.test):
        ((_, images, labels),) = split.batches(100)
        assert images.shape[1:] == (3, size, size)
        gray = images[:, 1, size // 2, size // 2] * data.spec.std[1] + data.spec.mean[1]
        assert (255 * gray / 60).add(0.01).long().tolist() == labels.tolist()


def test_files_that_stay_files_are_augmented_alike(tmp_path, monkeypatch):
    fill(tmp_path, {"cat": 20, "dog": 20})
    in_memory = list(opened(tmp_path).train.batches(10, view=1))
    monkeypatch.setattr("kdtool.data.images.IN_MEMORY_BYTES", 0)
    for expected, actual in zip(in_memory, opened(tmp_path).train.batches(10, view=1), strict=True):
        assert torch.equal(expected[1], actual[1])


@pytest.mark.parametrize("top", [255, 1023, 65535])
def test_images_without_labels_have_a_white_of_their_own_where_the_others_have_8_bits(tmp_path, top):
    fill(tmp_path / "pets", {"cat": 10, "dog": 10}, mode="L")
    (tmp_path / "more").mkdir()
    for number in range(3):
        deep = np.full((12, 12), top * number // 2, np.uint16)
        Image.fromarray(deep).save(tmp_path / "more" / f"{number}.png")
    data = opened(tmp_path / "pets", unlabelled=f"folder:{tmp_path / 'more'}", augment="none")
    ((_, images, _),) = data.train.batches(100)
    gray = 255 * (images[-3:, 0, 0, 0] * data.spec.std[0] + data.spec.mean[0])
    assert gray.round().tolist() == [0, 127, 255]


def test_prepared_images_need_no_files(tmp_path):
    data = opened(fill(tmp_path / "pets", {"cat": 10, "dog": 10}))
    data.val.prepare()
    shutil.rmtree(tmp_path / "pets")
    assert sum(len(labels) for _, _, labels in data.val.batches(4)) == len(data.val) >= 2
    with pytest.raises(Error, match="cannot be read"):
        data.test.prepare()


def test_a_checkpoint_finds_its_folder_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDTOOL_DATA", raising=False)
    fill(tmp_path / "pets", {"cat": 10, "dog": 10})
    spec = opened("pets").spec
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_spec(spec).spec == spec
    shutil.move(tmp_path / "pets", tmp_path / "elsewhere/pets")
    message = "folder: there is no folder .*pets; give its path, or its parent folder with --data-dir"
    with pytest.raises(Error, match=message):
        open_spec(spec)
    for data_dir in (".", "pets"):
        assert open_spec(spec, data_dir=Path(data_dir).resolve()).spec.splits == spec.splits


def test_data_dir_holds_relative_paths(tmp_path):
    fill(tmp_path / "pets", {"cat": 10, "dog": 10})
    assert opened("pets", data_dir=tmp_path).spec.name == f"folder:{tmp_path / 'pets'}"


def no_images(folder):
    for name in ("cat", "dog"):
        (folder / name).mkdir()


def one_class(folder):
    fill(folder, {"cat": 4})


def empty_class(folder):
    fill(folder, {"cat": 4})
    (folder / "dog").mkdir()


def no_classes(folder):
    Image.new("RGB", (8, 8)).save(folder / "cat.png")


def no_train(folder):
    fill(folder / "test", {"cat": 2, "dog": 2})


def other_class_in_test(folder):
    fill(folder / "train", {"cat": 2, "dog": 2})
    fill(folder / "test", {"cow": 2})


def one_image_each(folder):
    fill(folder, {"cat": 1, "dog": 1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_images, "no images"),
        (one_class, r"1 class \(cat\)"),
        (empty_class, "no image of class 'dog'"),
        (no_classes, "has no class folders"),
        (no_train, "has no class folders in a train folder"),
        (other_class_in_test, "the classes of test are not those of train: it lacks 'cat', 'dog', it adds 'cow'"),
        (one_image_each, "no class has more than one image"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(Error, match=rf"^folder:[^\n]*{message}[^\n]*$"):
        opened(tmp_path)


def test_no_path_and_no_folder():
    with pytest.raises(UsageError, match="write folder:PATH"):
        opened("")
    with pytest.raises(Error, match="there is no folder nowhere"):
        opened("nowhere")


@pytest.mark.parametrize("name", ["a\u00a0b", "写真\u3000二", "x\u2028y", "\u202egnp", "cafe\u0301 \U0001f431"])
def test_paths_with_any_space_or_letter(tmp_path, name):
    spec = opened(fill(tmp_path / name, {"cat": 5, "dog": 5})).spec
    assert spec.name == f"folder:{tmp_path / name}"
    assert open_spec(spec).spec == spec


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\udcff"])
def test_paths_that_are_no_line_of_text_are_refused_in_one(tmp_path, name):
    fill(tmp_path / name, {"cat": 5, "dog": 5})
    with pytest.raises(
        Error, match=r"the path has a control character, a line break or is not UTF-8 .* rename"
    ) as caught:
        opened(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("size", [12, 72])
def test_a_damaged_image_is_named(tmp_path, size):
    fill(tmp_path, {"cat": 40, "dog": 40})
    bad = tmp_path / "cat/001.png"
    bad.write_bytes(bad.read_bytes()[:40])

    def read_all():
        data = open_data(DataOptions(data=f"folder:{tmp_path}"), image_size=size)
        return [list(split.batches(10)) for split in (data.train, data.val, data.test)]

    with pytest.raises(Error, match=r"cat/001\.png: cannot be read as an image"):
        read_all()


@pytest.mark.skipif(
    not Path(os.environ.get("KDTOOL_DATA", ""), "cifar10/train/cat").is_dir(),
    reason="there is no cifar10/train/cat, ... in KDTOOL_DATA",
)
def test_real_images():
    data = opened("cifar10", data_dir=Path(os.environ["KDTOOL_DATA"]), subset=0.02)
    assert (len(data.train), len(data.val), len(data.test)) == (pytest.approx(900, abs=9), 5000, 10000)
    assert (data.spec.image_size, data.spec.in_channels) == (32, 3)
    assert data.spec.mean == pytest.approx((0.491, 0.482, 0.447), abs=0.01)


@pytest.mark.parametrize(("name", "way"), [("a.parquet", "parquet:PATH"), ("000.tar", "webdataset:PATH")])
def test_a_folder_of_files_that_hold_images_names_what_reads_them(tmp_path, name, way):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(Error, match=f"has no images .*; read it with {way}"):
        opened(tmp_path)
