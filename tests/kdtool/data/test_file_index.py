"""The index of image files: what is cached, and what is read again."""

import os
import sqlite3
import time

import numpy as np
import pytest
from PIL import Image

import kdtool.data.file_index as file_index
from kdtool.data.file_index import index_files
from kdtool.errors import Error


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images.sqlite"


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, mode in enumerate(("L", "RGB", "P")):
        Image.fromarray(np.full((4, 6), number, dtype=np.uint8)).convert(mode).save(folder / f"{number}.png")
        settle(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(3)]


def settle(path, seconds=100):
    """Give a file a time in the past; its change time is set by the system, so the index is told to wait less."""
    past = time.time() - seconds
    os.utime(path, (past, past))


@pytest.fixture
def read(monkeypatch):
    """The files that are read, not taken from the cache."""
    names = []
    real = file_index._read
    monkeypatch.setattr(file_index, "SETTLED", -1.0)
    monkeypatch.setattr(file_index, "_read", lambda path: names.append(path.name) or real(path))
    return names


def test_headers_and_hashes(cache, paths):
    infos = index_files(paths)
    assert [(info.width, info.height, info.mode) for info in infos] == [(6, 4, "L"), (6, 4, "RGB"), (6, 4, "P")]
    assert len({info.digest for info in infos}) == 3
    paths[1].write_bytes(paths[0].read_bytes())
    again = index_files(paths)
    assert again[1].digest == again[0].digest == infos[0].digest


def test_a_file_is_read_once_until_it_changes(cache, paths, read):
    first = index_files(paths)
    assert sorted(read) == ["0.png", "1.png", "2.png"]
    del read[:]
    assert index_files(paths) == first
    assert read == []
    Image.fromarray(np.full((4, 6), 99, dtype=np.uint8)).save(paths[2])
    changed = index_files(paths)
    assert read == ["2.png"]
    assert changed[:2] == first[:2]
    assert changed[2].digest != first[2].digest


def test_another_content_of_the_same_size_and_time_is_seen(cache, paths, read):
    before = paths[0].stat()
    first = index_files(paths)
    content = bytearray(paths[0].read_bytes())
    content[-1] ^= 1
    paths[0].write_bytes(content)
    os.utime(paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index_files(paths)[0].digest != first[0].digest


def test_a_file_that_has_just_changed_is_not_cached(cache, paths, monkeypatch):
    monkeypatch.setattr(file_index, "SETTLED", 3600.0)
    index_files(paths)
    with sqlite3.connect(cache) as database:
        assert database.execute("SELECT count(*) FROM " + file_index.TABLE).fetchone() == (0,)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_database_is_made_anew(cache, paths, content):
    expected = index_files(paths)
    cache.write_bytes(content)
    assert index_files(paths) == expected
    assert index_files(paths) == expected


def test_rows_of_another_kind_are_not_believed(cache, paths, read):
    expected = index_files(paths)
    with sqlite3.connect(cache) as database:
        database.execute(f"UPDATE {file_index.TABLE} SET digest = 'text', width = 'x'")
    assert index_files(paths) == expected


@pytest.mark.parametrize("place", ["/proc/nothing", "/dev/null/x"])
def test_without_a_cache_directory_everything_is_read(paths, monkeypatch, read, place):
    monkeypatch.setenv("KDTOOL_CACHE", place)
    assert index_files(paths) == index_files(paths)
    assert len(read) == 6


def test_an_unreadable_image_has_a_problem_and_a_missing_one_is_an_error(cache, paths):
    paths[1].write_bytes(b"no image")
    infos = index_files(paths)
    assert [bool(info.problem) for info in infos] == [False, True, False]
    assert str(paths[1]) in infos[1].problem
    paths[0].unlink()
    with pytest.raises(Error, match=r"0\.png: cannot be read"):
        index_files(paths)


def test_a_pipe_is_an_error_not_a_wait_for_ever(cache, tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(Error, match=r"a\.png: cannot be read: it is no regular file"):
        index_files([tmp_path / "a.png"])


def test_an_unreadable_image_is_looked_at_again_by_a_later_release_of_pillow(cache, paths, read):
    paths[1].write_bytes(b"no image")
    index_files(paths)
    del read[:]
    index_files(paths)
    assert read == ["1.png"]


def test_images_that_exif_has_turned_are_known(cache, read, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6, 4)).save(tmp_path / "turned.png", exif=exif)
    Image.new("L", (6, 4)).save(tmp_path / "plain.png")
    for _ in range(2):
        infos = index_files([tmp_path / "turned.png", tmp_path / "plain.png"])
        assert [(info.width, info.height, info.turned) for info in infos] == [(4, 6, True), (6, 4, False)]
    assert sorted(read) == ["plain.png", "turned.png"]
