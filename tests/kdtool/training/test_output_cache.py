"""Rows on disk: read as they were written, within a limit, and without trouble when the disk is full."""

import errno
import mmap
import os
import shutil

import psutil
import pytest
import torch

from kdtool.training.output_cache import GIVE_BACK_BYTES, LEFT_FREE_BYTES, Cache


def filled(cache, name, rows):
    array = cache.create(name, tuple(rows.shape), torch.float16)
    order = torch.randperm(len(rows))
    kept = torch.empty_like(rows)
    for chunk in order.split(3):
        kept[chunk] = array.write(chunk, rows[chunk])
    array.close()
    return kept


def test_rows_are_read_as_they_were_returned_when_written(tmp_path):
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
    array = cache.create("a", (2, 1), torch.float16)
    rows = torch.tensor([[1.0], [1e6]])
    assert torch.equal(array.write(torch.arange(2), rows), rows)
    array.close()
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
