"""A cache of arrays on disk with one row for each image; all arrays together stay below a limit.

Whether an array is there, was there or is lost must not change a result. So `rounded` decides what an output is, not
the array, and an array that is damaged is not there.

Several processes that train together fill one file for each machine: each writes the rows of the images that it has,
and the file gets its name when all have written all rows. Between machines the rows are sent.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtool.utils.files import slug
from kdtool.utils.processes import collected, everyone, gathered, leads_node, nodes
from kdtool.utils.progress import say

# Pages of a mapped file count as memory of this process until they are given back.
GIVE_BACK_BYTES = 64 << 20

# Linux maps up to this much (a huge page) around a page that is read: small rows cost more memory than their bytes.
READ_AROUND_BYTES = 2 << 20

# This much of the disk stays free for other files, above all for the state of the run.
LEFT_FREE_BYTES = 1 << 30

# numpy has no bfloat16: its bits are stored as integers.
DTYPES: dict[torch.dtype, type[np.generic]] = {
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: np.int16,
}

LARGEST_FLOAT16 = torch.finfo(torch.float16).max

# Complete arrays end with this many bytes more: the sum of their numbers' bits.
SUM_BYTES = 8

# The arrays whose sum this process wrote or has seen to be right.
_CHECKED: set[tuple[Path, int]] = set()


class Cache:
    """A directory of cached arrays that takes no more than ``limit`` bytes."""

    def __init__(self, directory: Path, limit: int, tell: Callable[[str], None] = say) -> None:
        """Keep arrays in ``directory``, which need not exist yet; ``tell`` gets the message of a full disk."""
        self.directory, self.limit, self.tell = directory, limit, tell
        self._used: set[Path] = set()

    def ready(self, name: str) -> bool:
        """Return whether the array of that name is complete, on every machine; one that is damaged is removed."""
        return everyone(self._is_whole(self._path(name)) if leads_node() else True)

    def _is_whole(self, path: Path) -> bool:
        if not path.exists():
            return False
        try:
            known = (path, path.stat().st_mtime_ns)
            if known not in _CHECKED:
                _check(path)
                _CHECKED.add(known)
        except (OSError, ValueError, EOFError) as error:
            self.tell(f"{path}: damaged ({' '.join(str(error).split())}); its outputs are computed again")
            path.unlink(missing_ok=True)
            return False
        return True

    def open(self, name: str) -> CachedArray:
        """Return a complete array for reading."""
        path = self._path(name)
        self._used.add(path)
        return CachedArray(path, np.load(path, mmap_mode="r", allow_pickle=False), filling=False)

    def create(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> CachedArray | None:
        """Return an array to fill row by row, or None if there is no room for it.

        Arrays that were not opened by this cache are removed to make room, the oldest first.
        """
        kind, path = np.dtype(DTYPES[dtype]), self._path(name)
        partial = path.with_suffix(".part")
        reasons = collected((self._make(partial, shape, kind) if leads_node() else None, str(self.directory)))
        reason, place = next((told for told in reasons if told[0] is not None), (None, ""))
        if reason is not None:
            if leads_node():
                partial.unlink(missing_ok=True)
            if reason:
                self._full(place, reason)
            return None
        self._used.add(path)
        return CachedArray(path, np.lib.format.open_memmap(partial, mode="r"), filling=True)

    def _make(self, partial: Path, shape: tuple[int, ...], kind: np.dtype[Any]) -> str | None:
        """Make the file of an array; return None, or why it cannot be made: "" if it is larger than the limit."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            reason = self._room(int(np.prod(shape)) * kind.itemsize, partial)
            if reason is None:
                np.lib.format.open_memmap(partial, mode="w+", dtype=kind, shape=shape)
                _allocate(partial)
        except OSError as error:
            return error.strerror or str(error)
        return reason

    def _path(self, name: str) -> Path:
        return self.directory / f"{slug(name)}.npy"

    def _room(self, size: int, partial: Path) -> str | None:
        partial.unlink(missing_ok=True)
        if size > self.limit:
            return ""
        files = [path for path in self.directory.iterdir() if path.is_file()]
        taken = sum(path.stat().st_size for path in files)
        on_disk = taken + shutil.disk_usage(self.directory).free - LEFT_FREE_BYTES
        limit = min(self.limit, on_disk)
        idle = [path for path in files if path.with_suffix(".npy") not in self._used]
        for path in sorted(idle, key=lambda path: path.stat().st_mtime):
            if taken + size <= limit:
                break
            taken -= path.stat().st_size
            path.unlink()
        if taken + size > on_disk:
            return f"{LEFT_FREE_BYTES >> 30} GB of the disk stay free"
        return None if taken + size <= limit else ""

    def _full(self, place: str, reason: str) -> None:
        self.tell(f"{place}: no room for a cache ({reason}); the networks run in every step instead")
        self.limit = 0


def rounded(rows: Tensor) -> Tensor:
    """Return maps as they are read back: bfloat16 unchanged, all others as float32 with the precision of float16.

    Numbers that are finite but too large for float16 are unchanged; an array that would have to hold one is not kept.
    """
    if rows.dtype == torch.bfloat16:
        return rows
    exact, kept = rows.float(), rows.to(torch.float16).float()
    return kept if _surely_fit(exact) else torch.where(_overflown(exact, kept), exact, kept)


def _overflown(rows: Tensor, kept: Tensor) -> Tensor:
    """Return which of the finite numbers ``rows`` became infinite in ``kept``."""
    return kept.isinf() & rows.isfinite()


def _surely_fit(rows: Tensor) -> bool:
    """Return True if no number is too large for float16: one pass over them, where `_overflown` has five.

    Only of tensors on the CPU, since other devices would have to be waited for. False if a number is not finite.
    """
    if rows.device.type != "cpu" or not rows.numel():
        return False
    low, high = rows.aminmax()
    return bool(low >= -LARGEST_FLOAT16) and bool(high <= LARGEST_FLOAT16)


def _sum_of(array: np.ndarray) -> int:
    """Return the sum of an array's bytes, taken as integers of 2 bytes, modulo 2 to the power of 64."""
    flat = array.reshape(-1).view(np.uint16)
    step = GIVE_BACK_BYTES // flat.itemsize
    total = sum(int(flat[start : start + step].sum(dtype=np.uint64)) for start in range(0, len(flat), step))
    return total % (1 << 64)


def _check(path: Path) -> None:
    """Check that an array is whole and holds the bits that were written.

    Raises:
        ValueError: it does not.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    with open(path, "rb") as file:
        file.seek(-SUM_BYTES, os.SEEK_END)
        if array.dtype not in DTYPES.values() or file.tell() != array.offset + array.nbytes:
            raise ValueError("it is not of the expected size")
        if _sum_of(array) != int.from_bytes(file.read(), "little"):
            raise ValueError("its numbers are not those that were written")


def _allocate(path: Path) -> None:
    """Allocate a file's disk space now, so that a full disk is noticed before anything is computed for it."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


class CachedArray:
    """Rows of an array on disk."""

    def __init__(self, path: Path, array: np.memmap, *, filling: bool) -> None:
        """Read ``array``, or fill it until `close` moves it to ``path``."""
        self.path, self.array, self.filling, self.made = path, array, filling, filling
        self.partial = path.with_suffix(".part")
        self.touched = 0
        self.dtype = next(torch_type for torch_type, numpy_type in DTYPES.items() if array.dtype == numpy_type)

    def read(self, indices: Tensor) -> Tensor:
        """Return the rows ``indices`` [batch], as bfloat16 if they are stored so, else as float32."""
        rows = torch.from_numpy(self.array[indices.numpy()])
        self._touch(rows)
        typed = rows.view(self.dtype)
        return typed if self.dtype == torch.bfloat16 else typed.float()

    def write(self, indices: Tensor, rows: Tensor) -> None:
        """Write the rows ``indices`` [batch], which are `rounded` if the array is one of float16.

        If a number is too large for the array's type, filling ends and nothing is cached.
        """
        if not self.filling and nodes() == 1:
            return
        exact = rows.detach().cpu()
        kept = exact.to(self.dtype)
        if self.dtype == torch.float16 and not _surely_fit(exact) and bool(_overflown(exact, kept).any()):
            self.filling = False
        if nodes() > 1:
            indices, kept = gathered(indices), gathered(kept.contiguous().view(torch.uint8)).view(self.dtype)
        if not self.filling or (nodes() > 1 and not leads_node()):
            return
        self._put(indices, kept.contiguous().flatten(1).view(torch.uint8).numpy())

    def _put(self, indices: Tensor, rows: np.ndarray) -> None:
        """Write bytes [batch, bytes of a row] to the file: in a mapped one the kernel would fetch each page first."""
        size = rows.shape[1]
        try:
            with open(self.partial, "r+b", buffering=0) as file:
                for index, row in zip(indices.tolist(), rows, strict=True):
                    file.seek(self.array.offset + index * size)
                    self.filling &= file.write(row) == size
        except OSError:  # the outputs are computed again
            self.filling = False

    def close(self) -> None:
        """Make a filled array readable; call this only after every row was written."""
        if not self.made:
            return
        if everyone(self.filling) and leads_node():
            with contextlib.suppress(OSError):  # a disk that is full now: the outputs are computed again
                with open(self.partial, "ab") as file:
                    file.write(_sum_of(self.array).to_bytes(SUM_BYTES, "little"))
                os.replace(self.partial, self.path)
                _CHECKED.add((self.path, self.path.stat().st_mtime_ns))
        self.filling = self.made = False

    def _touch(self, rows: Tensor) -> None:
        if self.array.nbytes <= GIVE_BACK_BYTES:
            return  # the whole array takes no more memory than may stay mapped of a large one
        self.touched += max(rows.nbytes, len(rows) * READ_AROUND_BYTES)
        mapped = getattr(self.array, "_mmap", None)
        if self.touched > GIVE_BACK_BYTES and isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            with contextlib.suppress(OSError):
                mapped.madvise(mmap.MADV_DONTNEED)
            self.touched = 0
