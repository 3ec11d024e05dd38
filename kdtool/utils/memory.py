"""The memory of a process: what the C library keeps of that which is freed, and the values that are remembered."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

# glibc's numbers of the settings (malloc.h).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3

# The largest threshold that glibc takes: blocks below it come from the heap, not from the kernel page by page.
LARGEST_BLOCK = 32 << 20

# Free memory at the end of the heap goes back to the system only beyond this.
KEPT = 1 << 30

# Variables by which a user sets the same.
SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


@functools.cache
def keep_freed_memory() -> bool:
    """Raise the thresholds of malloc for this process; return whether that was done.

    By default glibc gives the memory of every large tensor back to the system and takes new pages, which the kernel has
    to fill with zeros, in the next step. Nothing is done without glibc, or where the user set something in the
    environment.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in SET_BY_USER):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_MMAP_THRESHOLD, LARGEST_BLOCK), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, LARGEST_BLOCK))
    return all([mallopt(name, value) == 1 for name, value in settings])


class Recent(dict[Key, Value]):
    """The values that were set last, at most ``most`` of them."""

    def __init__(self, most: int) -> None:
        """Begin without a value."""
        super().__init__()
        self.most = most

    def __setitem__(self, key: Key, value: Value) -> None:
        """Set a value, and forget the one that was set first if there are too many."""
        super().__setitem__(key, value)
        if len(self) > self.most:
            del self[next(iter(self))]
