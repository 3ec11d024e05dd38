"""What the checks of `kdtool.testing` say when something does not hold."""

from __future__ import annotations


def require(holds: object, message: str) -> None:
    """Raise `AssertionError` with the message where something does not hold."""
    if not holds:
        raise AssertionError(message)
