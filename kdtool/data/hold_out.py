"""Which images are held out for validation and test, and which a subset takes: seeded, and of every class."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from kdtool.utils.seeds import derive

# The fractional parts of irrational numbers, in 2^-64: the golden ratio and the square roots of 2 and 3. They and 1 are
# linearly independent over the rationals, so that what one selects is no part of what another selects.
STEPS = {
    "test": (math.isqrt(5 << 128) + 2**64 >> 1) % 2**64,
    "validation": math.isqrt(2 << 128) % 2**64,
    "subset": math.isqrt(3 << 128) % 2**64,
}

# Longer numbers are hashes or dates with times, which are in no sequence.
NUMBER = re.compile(r"(?<![0-9])[0-9]{1,9}(?![0-9])")


def stratified(labels: Tensor, fraction: float, seed: int, *, leave: int = 0) -> Tensor:
    """Return the sorted indices of a seeded ``fraction`` of every class, int64 [selected].

    In each class at least one image is selected, but at least ``leave`` images are not. With the same seed, a smaller
    fraction selects a subset of what a larger one selects. One image more or less draws all of them anew: this is for
    data sets whose images never change.
    """
    generator = torch.Generator().manual_seed(derive("stratified", seed))
    selected = []
    for members in _by_class(labels):
        count = min(max(1, round(fraction * len(members))), len(members) - leave)
        selected.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(selected).sort().values


def hashed(keys: Sequence[str], labels: Tensor, fraction: float, seed: int, purpose: str, *, leave: int = 0) -> Tensor:
    """Return the sorted indices of the images that are selected by their key, int64 [selected].

    An image is selected if its `place` is below ``fraction``. This depends on the image alone: one that is added or
    removed moves no other. If that selects no image of a class, the one with the lowest place is selected; if it leaves
    fewer than ``leave``, those with the highest places are not selected.
    """
    places = torch.tensor([place(key, seed, purpose) for key in keys], dtype=torch.float64)
    selected = places < fraction
    ordered = places.argsort(stable=True)
    for members in _by_class(labels[ordered]):
        indices = ordered[members]
        count = min(max(1, int(selected[indices].sum())), len(indices) - leave)
        selected[indices] = False
        selected[indices[:count]] = True
    return selected.nonzero().flatten()


def _by_class(labels: Tensor) -> Sequence[Tensor]:
    """Return the ascending indices of the images of each class, in the order of the labels that occur.

    They are sorted once: to look for each class in all images takes seconds where there are thousands of classes.
    """
    counts = labels.unique(return_counts=True)[1]
    return torch.split(labels.argsort(stable=True), counts.tolist())


def place(key: str, seed: int, purpose: str) -> float:
    """Return a number in 0..1 that depends on a path alone, uniformly distributed over paths.

    It is the fractional part of h + n * s. n is the last number in the name of the file, 0 without one; h is a hash of
    the seed and of the path without that number; s is an irrational number of the ``purpose``. For numbered files this
    is a Kronecker sequence: of any run of them, very nearly the same share is below any fraction, where plain hashes
    would scatter like coins. The Unicode form of a path does not matter, since macOS stores names in another one (NFD).
    """
    folder, slash, name = unicodedata.normalize("NFC", key).rpartition("/")
    stem, dot, suffix = name.rpartition(".") if "." in name else (name, "", "")
    numbers = list(NUMBER.finditer(stem))
    number = 0
    if numbers:
        last = numbers[-1]
        number = int(last.group())
        stem = f"{stem[: last.start()]}#{stem[last.end() :]}"
    text = f"{seed} {folder}{slash}{stem}{dot}{suffix}".encode("utf-8", "surrogateescape")
    start = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    return (start + number * STEPS[purpose]) % 2**64 / 2**64
