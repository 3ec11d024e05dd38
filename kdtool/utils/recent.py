"""A bounded memory of a process."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


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
