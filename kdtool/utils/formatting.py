"""Numbers formatted for tables."""

from __future__ import annotations

from typing import Any


def shown_value(key: str, value: Any) -> str:
    """Return a value as text for a table; ``key`` is its name and selects the unit and the number of digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key == "macs":
        return f"{value / 1e6:,.3g} M" if value < 1e9 else f"{value / 1e6:,.0f} M"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if key.endswith(("compression", "ratio")):
            return f"{value:,.2f}x"
        if key == "seconds":
            return f"{value:,.1f}"
        return f"{value:.4g}" if abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:.4f}"
    return str(value)


def printable(text: str, limit: int = 160) -> str:
    """Return text from a file as one line of at most ``limit`` characters, without control characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:limit])
