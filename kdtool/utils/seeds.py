"""Derived seeds, and blocks of code that use them without changing torch's global random state."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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
