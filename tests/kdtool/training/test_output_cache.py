"""Rows on disk: read as they were written, within a limit, and without trouble when the disk is full."""

import errno
import mmap
import os
import shutil

import psutil
import pytest
import torch

from kdtool.training import output_cache
from kdtool.training.output_cache import GIVE_BACK_BYTES, LEFT_FREE_BYTES, Cache, rounded


def filled(cache, name, rows):
    array = cache.create(name, tuple(rows.shape), torch.float16)
    order = torch.randperm(len(rows))
    kept = rounded(rows)
    for chunk in order.split(3):
        array.write(chunk, kept[chunk])
    array.close()
    return kept


def test_rows_are_read_as_they_are_rounded(tmp_path):
    cache = Cache(tmp_path / "cache", 10**6)
    rows = torch.randn(10, 4, 2)
    kept = filled(cache, "a", rows)
    assert cache.ready("a")
    torch.testing.assert_close(kept, rows, rtol=1e-3, atol=1e-3)
    assert not torch.equal(kept, rows)  # rounded to float16 either way
    order = torch.tensor([7, 0, 7])
    assert torch.equal(cache.open("a").read(order), kept[order])


def test_an_array_is_not_ready_before_it_is_whole(tmp_path):
    cache = Cache(tmp_path, 10**6)
    array = cache.create("a", (4, 2), torch.float32)
    array.write(torch.arange(4), torch.ones(4, 2))
    assert not cache.ready("a")
    array.close()
    assert cache.ready("a")


def test_an_array_with_a_row_that_could_not_be_written_is_not_kept(tmp_path):
    cache = Cache(tmp_path, 10**6)
    array = cache.create("a", (4, 2), torch.float32)
    array.write(torch.tensor([0, 1]), torch.ones(2, 2))
    array.partial.rename(tmp_path / "elsewhere")
    array.write(torch.tensor([2, 3]), torch.ones(2, 2))
    (tmp_path / "elsewhere").rename(array.partial)
    array.close()
    assert not cache.ready("a")


def test_the_limit_holds_and_what_is_idle_gives_way(tmp_path):
    rows = torch.zeros(100, 10)  # 2,000 bytes and a header
    first = Cache(tmp_path, 5000)
    filled(first, "a", rows)
    filled(first, "b", rows)
    assert first.create("c", (100, 10), torch.float16) is None  # a and b are in use here
    later = Cache(tmp_path, 5000)
    later.open("b")
    filled(later, "c", rows)
    assert [later.ready(name) for name in "abc"] == [False, True, True]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5000


def test_some_of_the_disk_stays_free(tmp_path, monkeypatch):
    rows, told = torch.zeros(100, 10), []  # 2,000 bytes and a header
    usage = shutil.disk_usage(tmp_path)

    def free(left):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=LEFT_FREE_BYTES + left))

    filled(Cache(tmp_path, 10**6), "idle", rows)
    cache = Cache(tmp_path, 10**6, told.append)
    free(100)
    filled(cache, "a", rows)  # in place of the idle one
    assert [cache.ready(name) for name in ("idle", "a")] == [False, True]
    assert cache.create("b", (100, 10), torch.float16) is None
    assert told == [
        f"{tmp_path}: no room for a cache (1 GB of the disk stay free); the networks run in every step instead"
    ]
    assert cache.ready("a")


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="pages cannot be given back here")
def test_memory_does_not_grow_with_the_array(tmp_path):
    rows = 150_000  # of 1 KB, read in any order
    cache = Cache(tmp_path, 10**9)
    array = cache.create("a", (rows, 512), torch.float16)
    for chunk in torch.arange(rows).split(5000):
        array.write(chunk, torch.ones(len(chunk), 512))
    array.close()
    whole, process = cache.open("a"), psutil.Process()
    before = most = process.memory_info().rss
    for chunk in torch.randperm(rows, generator=torch.Generator().manual_seed(0)).split(64):
        whole.read(chunk)
        most = max(most, process.memory_info().rss)
    print((most - before) >> 20)
    assert most - before < 2 * GIVE_BACK_BYTES + (16 << 20)


def test_a_number_beyond_float16_is_not_cached(tmp_path):
    cache = Cache(tmp_path, 10**6)
    array = cache.create("a", (2, 2), torch.float16)
    rows = torch.tensor([[1.0, 65504.0], [1e6, float("inf")]])  # 65504 is the largest number of float16
    assert torch.equal(rounded(rows), rows)
    array.write(torch.arange(2), rounded(rows))
    array.close()
    assert not cache.ready("a")


def test_rounding_is_that_of_float16_and_leaves_bfloat16_alone():
    # Between 2048 and 4096 float16 holds even numbers, bfloat16 multiples of 16.
    assert rounded(torch.tensor([2049.0, 2051.0])).tolist() == [2048.0, 2052.0]
    assert rounded(torch.tensor([2064.0], dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
        lambda data: b"",
        lambda data: data.replace(b"<f2", b"|O2"),
        lambda data: data.replace(b"(10, 4)", b"(90, 4)"),
    ],
)
def test_a_damaged_array_is_not_there_and_said_to_be_damaged(tmp_path, damage, monkeypatch):
    told = []
    cache = Cache(tmp_path, 10**6, told.append)
    filled(cache, "a", torch.randn(10, 4))
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(damage(file.read_bytes()))
    monkeypatch.setattr(output_cache, "_CHECKED", set())  # as in a new process
    assert not cache.ready("a")
    assert not file.exists()
    (line,) = told
    assert line.startswith(f"{file}: damaged (")
    assert line.endswith("; its outputs are computed again")
    filled(cache, "a", torch.randn(10, 4))
    monkeypatch.setattr(output_cache, "_CHECKED", set())
    assert cache.ready("a")


def test_an_array_that_changed_after_it_was_checked_is_checked_again(tmp_path):
    cache = Cache(tmp_path, 10**6)
    filled(cache, "a", torch.randn(10, 4))
    assert cache.ready("a")
    (file,) = tmp_path.glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    assert not cache.ready("a")


def test_a_full_disk_is_said_once_and_the_work_goes_on(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = Cache(tmp_path, 10**6)
    assert cache.create("a", (4, 2), torch.float32) is None
    assert cache.create("b", (4, 2), torch.float32) is None
    assert capsys.readouterr().err.count("no room for a cache (No space left on device)") == 1
    assert list(tmp_path.iterdir()) == []
