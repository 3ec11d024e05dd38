"""Parquet files whose images are unpacked: damaged ones, and a disk without space."""

import os

import pytest

from kdtool.errors import Error
from kdtool_datasets.arrow_files import places_in, unpacked

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

IMAGES = [bytes([row]) * (row + 1) for row in range(200)]


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("KDTOOL_CACHE", str(tmp_path / "cache"))
    table = pa.table({"image": pa.array(IMAGES, pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50, compression="zstd")
    return tmp_path / "a.parquet"


def test_the_bytes_of_each_image_are_found(path):
    file, places = unpacked(path, "image")
    content = file.read_bytes()
    assert [content[place.start : place.start + place.size] for place in places] == IMAGES
    assert unpacked(path, "image") == (file, places)


def test_a_file_with_the_size_and_time_of_the_one_before_is_unpacked_anew(path):
    for images in ([b"abc", b"defgh"], [b"cba", b"hgfed"]):
        pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), path, compression="none")
        os.utime(path, ns=(1, 1))
        file, places = unpacked(path, "image")
        content = file.read_bytes()
        assert [content[place.start : place.start + place.size] for place in places] == images


def test_what_was_unpacked_and_is_damaged_is_unpacked_again(path):
    file, places = unpacked(path, "image")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert unpacked(path, "image") == (file, places)
    assert file.read_bytes() == content


def test_what_is_missing_and_what_is_empty(tmp_path, path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": None, "path": "x"}, None, {"bytes": b"", "path": None}, {"bytes": b"abc", "path": "y"}]
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), path)
    _, places = unpacked(path, "image")
    assert [(place.size, place.name) for place in places] == [(-1, "x"), (-1, None), (0, None), (3, "y")]


def test_a_compressed_arrow_file_is_refused(tmp_path):
    schema = pa.schema([("image", pa.binary())])
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(tmp_path / "a.arrow", schema, options=options) as writer:
        writer.write_batch(pa.record_batch([pa.array([b"a" * 5000] * 9)], schema=schema))
    with pytest.raises(Error, match=r"a.arrow: its images are compressed; write it without compression"):
        places_in(tmp_path / "a.arrow", "image")


def test_no_place_to_unpack(path, tmp_path, monkeypatch):
    monkeypatch.setattr("kdtool_datasets.arrow_files.RESERVE", 2**70)
    with pytest.raises(Error, match="there is not enough space in"):
        unpacked(path, "image")
    assert not list((tmp_path / "cache/parquet").glob("*arrow*"))
    monkeypatch.setattr("kdtool_datasets.arrow_files.cache_directory", lambda: None)
    with pytest.raises(Error, match="there is no place to unpack its images; name a directory with KDTOOL_CACHE"):
        unpacked(path, "image")


def test_changed_files_are_read_or_refused_in_one_line(path, spoilt):
    content, messages = path.read_bytes(), []
    for seed in range(60):
        path.write_bytes(spoilt(content, seed, 50))
        try:
            unpacked(path, "image")
        except Error as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert not [message for message in messages if "\n" in message or "a.parquet: cannot be read (" not in message]
