"""Refuse options that nothing would read."""

from __future__ import annotations

from kdtool.errors import UsageError
from kdtool.plugins.options import Options


def refuse_idle(options: Options, names: tuple[str, ...], owner: str) -> None:
    """Check that the options ``names``, which only ``owner`` reads and which is off, have their defaults.

    Raises:
        UsageError: one of them has another value, which would change nothing.
    """
    for name in names:
        info = options.info(name)
        if getattr(options, name) != info.default:
            raise UsageError(f"{info.flag}: belongs to {owner}; give that, or leave it out")
