"""Parquet files, written by pyarrow in the layouts of Hugging Face's datasets and of pandas."""

import io
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from kdtool.data.opening import open_data, open_spec
from kdtool.data.options import DataOptions
from kdtool.data.survey import survey
from kdtool.errors import Error
from kdtool.testing.checks import check_dataset
from kdtool_datasets.parquet import Parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["cat", "dog", "eel"]


def png(gray, size=12, form="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(np.full((size, size), gray, np.uint8)).save(file, form, **options)
    return file.getvalue()


def gray_of(label, row):
    """Each image has a shade of its own, from which its label can be told."""
    return 80 * max(label, 0) + row % 80


def hub_table(labels, *, names=NAMES, paths=None, **more):
    """Return a table as `datasets` writes it: images as {bytes, path}, class names in the metadata of the schema."""
    images = [{"bytes": png(gray_of(label, row)), "path": paths and paths[row]} for row, label in enumerate(labels)]
    columns = {"image": pa.array(images, STRUCT), "label": pa.array(labels, pa.int64())}
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table({**columns, **more}).replace_schema_metadata(metadata)


def write(folder, name, table, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def opened(path, **options):
    return open_data(DataOptions(data=f"parquet:{path}", augment="none", **options))


def error_of(path, **options):
    with pytest.raises(Error) as error:
        opened(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_labels_fit(data, channels=1):
    for split in (data.train, data.val, data.test):
        if split is not None:
            ((_, images, labels),) = split.batches(1000)
            gray = 255 * (images[:, 0, 5, 5] * data.spec.std[0] + data.spec.mean[0])
            assert (gray.round() // 80).long().tolist() == labels.tolist()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path):
    """The layout of a repository on the Hub: splits by the names of the files, in several shards."""
    write(tmp_path, "pets/data/train-00000-of-00002.parquet", hub_table([0, 1, 2] * 7), row_group_size=4)
    write(tmp_path, "pets/data/train-00001-of-00002.parquet", hub_table([2, 1] * 8), compression="zstd")
    write(tmp_path, "pets/data/validation-00000-of-00001.parquet", hub_table([0, 1, 2]))
    write(tmp_path, "pets/data/test-00000-of-00001-0123456789abcdef.parquet", hub_table([2, 2, 1]))
    (tmp_path / "pets/README.md").write_text("pets")
    return tmp_path / "pets"


def test_the_layout_of_the_hub(hub):
    check_dataset(Parquet, argument=str(hub))
    data = opened(hub)
    assert data.spec.classes == ("cat", "dog", "eel")
    assert (data.spec.image_size, data.spec.in_channels) == (12, 1)
    assert [len(split) for split in (data.train, data.val, data.test)] == [37, 3, 3]
    assert data.train.labels.bincount().tolist() == [7, 15, 15]
    assert_labels_fit(data)


def test_a_checkpoint_finds_the_same_images_again(hub, cache):
    data = opened(hub)
    again = open_spec(data.spec)
    assert again.spec.splits == data.spec.splits
    first, second = ([images for _, images, _ in found.train.batches(8, view=1)] for found in (data, again))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    # Without the cache the images are unpacked anew.
    for file in (cache / "parquet").glob("*.arrow"):
        file.unlink()
    assert open_spec(data.spec).spec.splits == data.spec.splits


def test_one_file_is_split(tmp_path):
    data = opened(write(tmp_path, "train.parquet", hub_table([0, 1, 2] * 40)))
    assert len(data.train) + len(data.val) + len(data.test) == 120
    assert 12 <= len(data.test) <= 36
    assert_labels_fit(data)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_column_of_bytes_and_labels_as_text(tmp_path, kind):
    labels = ["dog", "cat"] * 20
    images = [png(gray_of(["cat", "dog"].index(label), row)) for row, label in enumerate(labels)]
    table = pa.table({"img": pa.array(images, kind), "class": labels, "width": [12] * 40})
    data = opened(write(tmp_path, "a.parquet", table))
    assert data.spec.classes == ("cat", "dog")
    assert_labels_fit(data)


def test_numbers_without_names_are_classes_by_their_size(tmp_path):
    labels = [10, 2, 9] * 10
    table = pa.table({"image": pa.array([png(row) for row in range(30)]), "label": pa.array(labels, pa.int16())})
    assert opened(write(tmp_path, "a.parquet", table)).spec.classes == ("2", "9", "10")


def test_photographs_stay_in_their_file_and_are_read_by_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("kdtool.data.image_files.FEW", 4)
    images = [png(gray_of(row % 3, row), size=80, form="JPEG", quality=95) for row in range(60)]
    table = pa.table({"image": pa.array(images), "label": pa.array([row % 3 for row in range(60)])})
    path = write(tmp_path, "a.parquet", table)
    data = open_data(DataOptions(data=f"parquet:{path}", augment="none"), image_size=72)
    seen = 0
    for _, pixels, labels in data.train.batches(8):
        gray = 255 * (pixels[:, 0, 40, 40] * data.spec.std[0] + data.spec.mean[0])
        assert ((gray.round() + 2) // 80).long().tolist() == labels.tolist()
        seen += len(labels)
    assert seen == len(data.train)


def test_a_changed_file_is_unpacked_anew_and_said(tmp_path, caplog, cache):
    path = write(tmp_path, "a.parquet", hub_table([0, 1, 2] * 10))
    data = opened(path)
    write(tmp_path, "a.parquet", hub_table([0, 1, 2] * 10 + [1]))
    os.utime(path, ns=(1, 1))
    again = open_spec(data.spec)
    assert len(again.train) + len(again.val) + len(again.test) == 31
    assert "the images changed since the checkpoint was made" in caplog.text
    assert len(list((cache / "parquet").glob("*.arrow"))) == 1


def test_paths_are_the_keys_where_they_are_unique(tmp_path):
    paths = [f"{row}.png" for row in range(6)]
    unique = Parquet().load(str(write(tmp_path, "a.parquet", hub_table([0, 1, 2] * 2, paths=paths))), None)
    assert unique.train.keys[:2] == ("a/0.png", "a/1.png")
    same = Parquet().load(str(write(tmp_path, "b.parquet", hub_table([0, 1, 2] * 2, paths=["x.png"] * 6))), None)
    assert same.train.keys[:2] == ("b#0", "b#1")


def test_without_labels(tmp_path):
    table = hub_table([0, 1, 2] * 4).drop_columns("label")
    path = write(tmp_path, "a.parquet", table)
    assert error_of(path).endswith("a.parquet: has no column of labels, only the images")
    path = write(tmp_path, "b.parquet", table.append_column("caption", pa.array(["a pet"] * 12)))
    assert error_of(path).endswith(
        f"has no column of labels, only caption; if one of them is the label, choose it with parquet:{path},label=NAME"
    )
    # Images alone are enough to learn from a teacher.
    labelled = write(tmp_path, "c.parquet", hub_table([0, 1, 2] * 10))
    data = opened(labelled, unlabelled=f"parquet:{path}")
    assert data.train.unlabelled == 12


def test_two_columns_may_be_the_label(tmp_path):
    coarse = pa.array([row % 2 for row in range(30)])
    table = hub_table([0, 1, 2] * 10, coarse=coarse).rename_columns(["image", "fine_label", "category"])
    features = {"fine_label": {"names": NAMES, "_type": "ClassLabel"}}
    features["category"] = {"names": ["tame", "wild"], "_type": "ClassLabel"}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path = write(tmp_path, "a.parquet", table)
    assert error_of(path).endswith(
        f"its columns fine_label and category may all be the label; choose one, as in parquet:{path},label=fine_label"
    )
    data = opened(f"{path},label=category")
    assert data.spec.classes == ("tame", "wild")
    assert open_spec(data.spec).spec.classes == ("tame", "wild")
    assert "has no column breed, only image, fine_label, category" in error_of(f"{path},label=breed")
    assert "there is no labels= in the name of this data set, only image, label" in error_of(f"{path},labels=category")


def test_the_column_label_wins_and_this_is_said(tmp_path, caplog):
    table = hub_table([0, 1, 2] * 10, target=pa.array([0] * 30))
    opened(write(tmp_path, "a.parquet", table))
    assert "labels are read from the column label, not from target" in caplog.text


def test_classes_without_images_are_left_out(tmp_path, caplog):
    data = opened(write(tmp_path, "a.parquet", hub_table([0, 2] * 10)))
    assert data.spec.classes == ("cat", "eel")
    assert "left out 1 class without images (dog)" in caplog.text


def test_a_test_split_without_labels_is_left_out(tmp_path, caplog):
    write(tmp_path, "pets/train.parquet", hub_table([0, 1, 2] * 10))
    write(tmp_path, "pets/test.parquet", hub_table([-1] * 5))
    assert opened(tmp_path / "pets").test is None
    assert "left out the test split, whose 5 images have no labels" in caplog.text
    write(tmp_path, "pets/test.parquet", hub_table([-1, 0, 1]))
    assert "1 of 3 images of the test split has no label (such as test#0)" in error_of(tmp_path / "pets")


def test_a_missing_shard(hub):
    (hub / "data/train-00001-of-00002.parquet").unlink()
    assert "1 file beside train-00000-of-00002.parquet is missing, of number 1" in error_of(hub)


def test_paths_of_a_table_are_not_opened(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(3))
    images = [{"bytes": None, "path": str(secret)}] + [{"bytes": png(row), "path": None} for row in range(1, 6)]
    table = pa.table({"image": pa.array(images, STRUCT), "label": pa.array([0, 1] * 3)})
    assert "1 row without bytes of an image (such as row 0)" in error_of(write(tmp_path, "a.parquet", table))


def test_a_damaged_image_is_named_by_its_row(tmp_path):
    images = [png(1), b"no image", *(png(row) for row in range(2, 20))]
    table = pa.table({"image": pa.array(images), "label": pa.array([0, 1] * 10)})
    path = write(tmp_path, "a.parquet", table)
    assert f"{path}: row 1: cannot be read as an image" in error_of(path)
    assert survey(DataOptions(data=f"parquet:{path}"))["unreadable"][0]["file"] == "a#1"


def test_damaged_and_unusual_files(tmp_path):
    path = write(tmp_path, "a.parquet", hub_table([0, 1, 2] * 10))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "a.parquet: cannot be read (" in error_of(path)
    path.write_bytes(b"")
    assert "a.parquet: cannot be read (" in error_of(path)
    table = pa.table({"file": ["1.png", "2.png"], "label": ["cat", "dog"]})
    assert "has no column of images" in error_of(write(tmp_path, "b.parquet", table))
    table = pa.table({"image": pa.array([png(1), png(2)]), "label": pa.array([0.5, 1.0])})
    assert "has no column of labels, only label" in error_of(write(tmp_path, "c.parquet", table))
    table = hub_table([0, 1, 2, 3])
    assert "an image has the label 3, but its classes have the numbers 0 to 2" in error_of(
        write(tmp_path, "d.parquet", table)
    )
    metadata = {"huggingface": b"\xff{"}
    spoilt = write(tmp_path, "e.parquet", hub_table([0, 1, 2] * 10).replace_schema_metadata(metadata))
    assert opened(spoilt).spec.classes == ("0", "1", "2")
    assert "there is no .parquet file or folder" in error_of(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "has no .parquet files" in error_of(tmp_path / "empty")


def test_files_of_two_data_sets(tmp_path):
    write(tmp_path, "pets/a/train.parquet", hub_table([0, 1, 2]))
    write(tmp_path, "pets/b/train.parquet", hub_table([0, 1, 2]))
    assert "may be of several data sets" in error_of(tmp_path / "pets")
    write(tmp_path, "more/train-0.parquet", hub_table([0, 1, 2]))
    write(tmp_path, "more/train-1.parquet", hub_table([0, 1], names=["dog", "cat"]))
    assert "its columns of images and labels, or its classes, are not those of train-0.parquet" in error_of(
        tmp_path / "more"
    )


def test_a_missing_package(tmp_path, monkeypatch):
    path = write(tmp_path, "a.parquet", hub_table([0, 1, 2] * 10))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert error_of(path) == "parquet: needs pyarrow; pip install 'kdtool[datasets]'"


def test_the_only_class_is_shown_without_control_characters(tmp_path):
    labels = pa.array(["\x1b[2J\n"] * 3)
    images = pa.array([png(row) for row in range(3)])
    path = write(tmp_path, "a.parquet", pa.table({"image": images, "label": labels}))
    assert error_of(path) == "parquet: 1 class (?[2J?); a classifier needs two or more"
