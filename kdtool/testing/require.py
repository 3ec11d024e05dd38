"""The assertion that all checks of `kdtool.testing` use.

It is a function, since Python leaves out ``assert`` statements with ``-O``.
"""

from __future__ import annotations


def require(condition: object, message: str) -> None:
    """Raise `AssertionError` with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)
