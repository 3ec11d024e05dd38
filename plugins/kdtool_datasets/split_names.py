"""Names of folders, and of values in lists, that mean a split."""

from __future__ import annotations

import re
from collections.abc import Sequence

WORDS = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation"),
    "test": ("test", "tests", "testing", "tst"),
}
# What is added to them, in any number: test_set, Train-Images, trainingdata, val2017.
MORE = (
    r"(?:set|sets|split|data|dataset|datasets|images?|imgs?|pictures|photos|samples|files|folder|dir|(?:19|20)\d\d|\d)"
)
PATTERNS = {split: re.compile(rf"{MORE}{{0,4}}(?:{'|'.join(words)}){MORE}{{0,4}}") for split, words in WORDS.items()}
# Written like this, a name needs no explanation.
USUAL = frozenset(("train", "val", "valid", "validation", "test"))


def split_of(name: str) -> str | None:
    """Return the split that a name means (train, val or test), in any case and usual spelling, or None."""
    plain = re.sub(r"[\W_]+", "", name.casefold())
    for split, pattern in PATTERNS.items():
        if pattern.fullmatch(plain):
            return split
    return None


def splits_of(names: Sequence[str]) -> dict[str, str]:
    """Return which of several names beside each other mean a split, and which one.

    A common beginning of all of them is left out, if train and another split are among what is left: ``seg_train`` and
    ``seg_test``.
    """
    plain = {name: split for name in names if (split := split_of(name)) is not None}
    if plain or len(names) < 2:
        return plain
    start = re.match(r"(?:.*[\W_])?", _common_start(min(names), max(names)), re.DOTALL)
    length = 0 if start is None else start.end()
    rest = {name: split for name in names if length and (split := split_of(name[length:])) is not None}
    return rest if "train" in rest.values() and len(set(rest.values())) > 1 else {}


def _common_start(first: str, last: str) -> str:
    length = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:length]
