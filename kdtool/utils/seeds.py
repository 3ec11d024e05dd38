"""Seeds that depend on what they are for, and blocks of code that draw from them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(*parts: object) -> int:
    """Return a seed, 0 <= seed < 2**63, that depends on all parts and on nothing else."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextlib.contextmanager
def forked(device: torch.device | None = None) -> Iterator[None]:
    """Give torch's global random state back as it was when the block ends, on the CPU and on ``device``.

    A notebook's own random numbers are then the same with and without the block.
    """
    import torch

    accelerators = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators):
        yield


@contextlib.contextmanager
def seeded(*parts: object, device: torch.device | None = None) -> Iterator[None]:
    """Let the block draw random numbers that depend on ``parts`` alone (see `derive`), and on nothing before it."""
    import torch

    with forked(device):
        torch.manual_seed(derive(*parts))
        yield
