"""Seeds that depend on what they are for."""

from __future__ import annotations

import hashlib


def derive(*parts: object) -> int:
    """Return a seed, 0 <= seed < 2**63, that depends on all parts and on nothing else."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
