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


def shown_duration(seconds: float) -> str:
    """Return a time as a text that a person reads: ``45 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    if seconds < 99.5:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def shown_bytes(count: float) -> str:
    """Return a number of bytes with a decimal unit: ``820 kB``, ``3.2 MB``, ``45 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.2g} {unit}" if count < 9.95 and unit != "bytes" else f"{count:.0f} {unit}"
        count /= 1000
    raise AssertionError
