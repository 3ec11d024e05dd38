"""The assertion that all checks of `kdtool.testing` use, and the same for code that may raise anything.

They are functions, since Python leaves out ``assert`` statements with ``-O``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kdtool.plugins.entry_points import reason_of


def require(condition: object, message: str) -> None:
    """Raise `AssertionError` with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


@contextlib.contextmanager
def failing(message: str, way_out: str = "") -> Iterator[None]:
    """Run code of a plugin in the block; if it raises, raise `AssertionError` with the message and the reason."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{message}: {reason_of(error)}{way_out}") from error
