"""Which images are held out for validation and test, and which a subset takes: seeded, and of every class."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from kdtool.utils.seeds import derive


def stratified(labels: Tensor, fraction: float, seed: int, *, leave: int = 0) -> Tensor:
    """Return the sorted indices of a seeded ``fraction`` of every class, int64 [selected].

    In each class at least one image is selected, but at least ``leave`` images are not. With the same seed, a smaller
    fraction selects a subset of what a larger one selects. One image more or less draws all of them anew: this is for
    data sets whose images never change.
    """
    generator = torch.Generator().manual_seed(derive("stratified", seed))
    selected = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        count = min(max(1, round(fraction * len(members))), len(members) - leave)
        selected.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(selected).sort().values


def hashed(keys: Sequence[str], labels: Tensor, fraction: float, seed: int, *, leave: int = 0) -> Tensor:
    """Return the sorted indices of the images that are selected by a hash of their key, int64 [selected].

    An image is selected if its `place` is below ``fraction``. This depends on the image alone: one that is added or
    removed moves no other. Of n images of a class, n * fraction are selected on average, with a standard deviation of
    sqrt(n * fraction * (1 - fraction)). If that selects no image of a class, the one with the lowest place is
    selected; if it leaves fewer than ``leave``, those with the highest places are not selected.
    """
    places = torch.tensor([place(key, seed) for key in keys], dtype=torch.float64)
    selected = places < fraction
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        ordered = members[places[members].argsort(stable=True)]
        count = min(max(1, int(selected[members].sum())), len(members) - leave)
        selected[members] = False
        selected[ordered[:count]] = True
    return selected.nonzero().flatten()


def place(key: str, seed: int) -> float:
    """Return a number in 0..1, uniformly distributed over keys; the Unicode form of a key does not matter.

    macOS stores the names of files in another Unicode form (NFD) than most other systems.
    """
    text = f"{seed} {unicodedata.normalize('NFC', key)}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64
