"""Derived seeds, and blocks of code that leave torch's global state, its random numbers too, as it was."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kdtool.utils.progress import say

if TYPE_CHECKING:
    import torch


_LOCKS: dict[int, threading.RLock] = {}  # type: ignore[valid-type]
"""The lock of `alone` by process: in a fork nothing would release one that another thread held."""

# A shorter wait is not worth a word, as where threads read many checkpoints.
TOLD_AFTER_SECONDS = 1


def derive(*parts: object) -> int:
    """Return a seed, 0 <= seed < 2**63, that depends on all ``parts`` and on nothing else."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextlib.contextmanager
def forked(device: torch.device | None = None) -> Iterator[None]:
    """Restore torch's global random state when the block ends, on the CPU and on ``device``.

    The random numbers of a notebook are then the same with and without the block.
    """
    import torch

    accelerators = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators):
        yield


def set_seed(seed: int, device: torch.device | None = None) -> None:
    """Seed torch's global generator of the CPU and that of ``device``.

    `torch.manual_seed` would seed every accelerator, also those that `forked` does not give back.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device is not None and device.type == "mps":
        torch.mps.manual_seed(seed)


@contextlib.contextmanager
def seeded(*parts: object, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch from ``parts`` while the block runs (see `derive`), and restore its random state afterwards."""
    with forked(device):
        set_seed(derive(*parts), device)
        yield


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Run a block with torch as a process begins with it, and then put back what the caller has set.

    Gradients are recorded, and new tensors are float32 and on the CPU. The blocks of several threads run one after
    another, since threads share torch's random numbers; blocks of one thread may be inside each other.
    """
    import torch

    one = _LOCKS.setdefault(os.getpid(), threading.RLock())
    if not one.acquire(timeout=TOLD_AFTER_SECONDS):
        say("waits for what kdtool does in another thread; use processes to do both at a time")
        one.acquire()
    dtype = torch.get_default_dtype()
    try:
        with contextlib.ExitStack() as stack:
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            torch.set_default_dtype(torch.float32)
            yield
    finally:
        torch.set_default_dtype(dtype)
        one.release()
