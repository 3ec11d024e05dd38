"""Shards of WebDataset, written by tarfile as the library's own writer names their members."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from kdtool.data.opening import open_data, open_spec
from kdtool.data.options import DataOptions
from kdtool.errors import Error
from kdtool.testing.checks import check_dataset
from kdtool_datasets.webdataset import WebDataset


def image(gray, size=12, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.full((size, size), gray, np.uint8)).save(file, form)
    return file.getvalue()


def gray_of(label, row):
    return 80 * label + row % 80


def sample(key, label, row=0):
    return {f"{key}.png": image(gray_of(label, row)), f"{key}.cls": str(label).encode()}


def samples(count, start=0, classes=3):
    members = {}
    for row in range(start, start + count):
        members |= sample(f"{row:06}", row % classes, row)
    return members


def write(path, members, form=tarfile.USTAR_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def opened(path, **options):
    return open_data(DataOptions(data=f"webdataset:{path}", augment="none", **options))


def error_of(path, **options):
    with pytest.raises(Error) as error:
        opened(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_labels_fit(data):
    for split in (data.train, data.val, data.test):
        if split is not None:
            ((_, images, labels),) = split.batches(1000)
            gray = 255 * (images[:, 0, 5, 5] * data.spec.std[0] + data.spec.mean[0])
            assert (gray.round() // 80).long().tolist() == labels.tolist()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_of_a_folder_and_of_a_pattern(tmp_path, form):
    for shard in range(3):
        write(tmp_path / f"pets/{shard:03}.tar", samples(30, 30 * shard), form)
    check_dataset(WebDataset, argument=str(tmp_path / "pets"))
    data = opened(tmp_path / "pets")
    assert data.spec.classes == ("0", "1", "2")
    assert len(data.train) + len(data.val) + len(data.test) == 90
    assert_labels_fit(data)
    pattern = opened(tmp_path / "pets/{000..002}.tar")
    assert pattern.spec.splits == data.spec.splits
    part = opened(tmp_path / "pets/{000..001}.tar")
    assert len(part.train) + len(part.val) + len(part.test) == 60
    assert open_spec(part.spec).spec.splits == part.spec.splits


@pytest.mark.parametrize("names", [("train/0.tar", "test/0.tar"), ("pets-train-0000.tar", "pets-test-0000.tar")])
def test_splits_and_names_of_classes(tmp_path, names, caplog):
    write(tmp_path / names[0], samples(30))
    write(tmp_path / names[1], samples(6))
    (tmp_path / "classnames.txt").write_text("cat\ndog\neel\n")
    data = opened(tmp_path)
    assert data.spec.classes == ("cat", "dog", "eel")
    assert "the names of the classes are read from classnames.txt" in caplog.text
    assert "left out" not in caplog.text
    assert len(data.test) == 6
    assert_labels_fit(data)


def test_labels_in_json_and_names_with_folders(tmp_path):
    members = {}
    for row in range(30):
        label = row % 2
        members[f"a/{row}.jpg"] = image(gray_of(label, 0) + 2, form="JPEG")
        members[f"a/{row}.json"] = json.dumps({"label": ["cat", "dog"][label], "width": 12}).encode()
        members[f"a/{row}.seg.png"] = image(row)
        members[f"a/{row}.txt"] = b"a pet"
    data = opened(write(tmp_path / "a.tar", members))
    assert data.spec.classes == ("cat", "dog")
    assert_labels_fit(data)
    assert WebDataset().load(str(tmp_path / "a.tar"), None).train.keys[0] == "a/a/0.jpg"


def test_files_that_do_not_belong_are_counted(tmp_path, caplog):
    members = samples(30) | {"000001.txt": b"a pet", "more.cls": b"1", "LICENSE": b"free"}
    opened(write(tmp_path / "a.tar", members))
    assert "left out 1 sample of a.tar without an image (more)" in caplog.text
    assert "left out 2 files in a.tar, no images or labels (000001.txt, LICENSE)" in caplog.text


def test_two_labels_or_images(tmp_path):
    members = {}
    for row in range(30):
        members[f"{row}.png"] = image(gray_of(row % 3, row))
        members[f"{row}.json"] = json.dumps({"class": row % 2, "category": row % 3}).encode()
    path = write(tmp_path / "a.tar", members)
    assert error_of(path).endswith(
        "the entries class and category of its .json may all be the label; choose one, as in "
        "webdataset:PATH,label=class"
    )
    assert_labels_fit(opened(f"{path},label=category"))
    assert "its .json has no entry breed, only class, category" in error_of(f"{path},label=breed")
    both = samples(30) | {f"{row:06}.jpg": image(9, form="JPEG") for row in range(30)}
    path = write(tmp_path / "b.tar", both)
    assert "has the images .png and .jpg; choose one, as in webdataset:PATH,image=png" in error_of(path)
    assert_labels_fit(opened(f"{path},image=png"))


def test_an_image_without_a_label(tmp_path):
    members = samples(30)
    del members["000007.cls"]
    path = write(tmp_path / "a.tar", members)
    assert "a.tar: 000007.png: has no label; each image needs a .cls, or a .json with the entry label" in error_of(path)
    members["000007.json"] = b'{"width": 12}'
    assert "000007.png: has no label; its .json has width; if" in error_of(write(tmp_path / "a.tar", members))
    members["000007.json"] = b"{"
    assert "000007.png: its .json cannot be read" in error_of(write(tmp_path / "a.tar", members))
    members["000007.json"] = b'{"label": 0.5}'
    assert "its label is empty, or neither text nor a whole number" in error_of(write(tmp_path / "a.tar", members))
    labelled = write(tmp_path / "b.tar", samples(30))
    assert opened(labelled, unlabelled=f"webdataset:{path}").train.unlabelled == 30


def test_a_truncated_tar(tmp_path):
    path = write(tmp_path / "a.tar", samples(30))
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        last, after = tar.getmembers()[-2:]
    # In an image, between two members, at the end of the last one.
    for cut, where in (
        (last.offset_data + 10, "ends in the middle of"),
        (after.offset, "ends without the zeros at the end"),
        (after.offset_data + 512, "ends without the zeros at the end"),
    ):
        path.write_bytes(content[:cut])
        assert "a.tar: is truncated, it " + where in error_of(path), cut
    path.write_bytes(content[: after.offset + 7])
    assert "a.tar: " in error_of(path)


def test_damaged_and_unusual_tars(tmp_path):
    path = write(tmp_path / "a.tar", samples(30))
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        header = tar.getmembers()[10].offset
    path.write_bytes(content[:header] + b"\xff" * 100 + content[header + 100 :])
    assert f"a.tar: is damaged at byte {header:,}" in error_of(path)
    path.write_bytes(content + content)
    assert "a.tar: has more data behind its end" in error_of(path)
    path.write_bytes(b"")
    assert "a.tar: cannot be read as a tar (empty file)" in error_of(path)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "a.tar", "x.png")
    assert "a.tar: is compressed" in error_of(path)
    assert "holds no images" in error_of(write(path, {"a.txt": b"text"}))
    assert "has two files 0.png" in error_of(write(path, {"./0.png": image(1)}) and _doubled(path))
    dotted = {f"cat.{row}.png": image(row) for row in range(5)}
    assert "cat.0.png and 4 more files are one sample, since a sample's name ends at the first dot" in error_of(
        write(path, dotted)
    )
    large = {"0.png": image(1), "0.cls": b"1" * 2_000_000}
    assert "0.cls has 2,000,000 bytes, too many for a label" in error_of(write(path, large))


def _doubled(path):
    with tarfile.open(path, "w") as tar:
        for content in (image(1), image(2)):
            info = tarfile.TarInfo("0.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_nothing_is_unpacked_and_links_are_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    secret = tmp_path / "secret.png"
    secret.write_bytes(image(3))
    path = write(tmp_path / "in/a.tar", samples(30) | {"../../out.png": image(1), "../../out.cls": b"1"})
    with tarfile.open(path, "a") as tar:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
    raw = WebDataset().load(str(path), None)
    assert len(raw.train) == 31
    assert {entry.path for entry in raw.train.images} == {path}
    assert sorted(os.listdir(tmp_path)) == ["in", "secret.png"]


def test_missing_shards(tmp_path):
    for shard in (0, 1, 3):
        write(tmp_path / f"{shard:03}.tar", samples(30, 30 * shard))
    assert "1 of 4 files is missing (002.tar)" in error_of(tmp_path / "{000..003}.tar")
    assert "1 file beside 000.tar is missing, of number 2" in error_of(tmp_path)
    assert "there is no .tar file or folder" in error_of(tmp_path / "{100..103}.tar")
    assert "{003..000}: is no range of numbers" in error_of(tmp_path / "{003..000}.tar")
    assert len(opened(tmp_path / "{000..001}.tar").train) > 30


def test_a_file_that_was_cut_off_since_is_named(tmp_path):
    path = write(tmp_path / "a.tar", samples(30))
    data = opened(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(
        Error, match=r"a.tar: 0000\d\d.png: cannot be read as an image \(the file ends before the image"
    ):
        list(data.test.batches(100))


def test_changed_tars_are_read_or_refused_in_one_line(tmp_path, spoilt):
    path = write(tmp_path / "a.tar", samples(10))
    content, messages = path.read_bytes(), []
    for seed in range(100):
        path.write_bytes(spoilt(content, seed, 600))
        try:
            WebDataset().load(str(path), None)
        except Error as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert not [message for message in messages if "\n" in message]
