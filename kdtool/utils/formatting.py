"""Numbers formatted for tables, and texts of strangers made harmless."""

from __future__ import annotations

import math
import re
from typing import Any

COUNTS = ("parameters", "nonzero", "macs", "file_bytes", "gzip_bytes", "images", "classified_differently")
"""The keys of numbers that are whole; a mean of them is shown as a whole number too if it is one, or large."""

FEWEST_SEEDS = 3
"""With fewer values an interval says nothing: that of two reaches 12.7 of their standard errors to each side."""


HUGE = 1e15
"""From here on not all digits of a number that is not whole are shown."""


def shown_value(key: str, value: Any) -> str:
    """Return a value as text for a table; ``key`` is its name and selects the unit and the number of digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and HUGE <= abs(value) < math.inf:
        return f"{value:.3g}"
    if isinstance(value, float) and key in COUNTS and math.isfinite(value):
        if key != "macs" and _count_decimals(value):
            return f"{value:,.1f}"
        value = round(value)  # a mean over seeds
    if isinstance(value, int) and key == "macs":
        return f"{three_digits(value / 1e6)} M"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) >= 1e4 and math.isfinite(value):
            return f"{value:,.0f}"
        if key.endswith(("compression", "ratio")):
            return f"{value:.2g}x" if 0 < abs(value) < 0.01 else f"{value:,.2f}x"
        if key.endswith("_ms"):
            return three_digits(value)
        if key in ("seconds", "cpu_seconds"):
            return f"{value:,.1f}"
        if key == "epochs":
            return f"{value:g}"
        return f"{value:.3g}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
    return printable(str(value), LONGEST_CELL)


def three_digits(value: float) -> str:
    """Return a number with three digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 999.5 and math.isfinite(value) else f"{value:.3g}"


def _count_decimals(mean: float) -> int:
    """Return the decimals of a mean of whole numbers."""
    return int(abs(mean) < 1e4 and not float(mean).is_integer())


def shown_interval(key: str, value: float, low: float, high: float) -> str:
    """Return ``value ± half the width``: the half with two digits, the value with the same decimals."""
    half = (high - low) / 2
    if not math.isfinite(half) or half <= 0:
        return shown_value(key, value)
    scale, unit = (1e-6, " M") if key == "macs" else (1.0, "x" if key.endswith(("compression", "ratio")) else "")
    if half * scale < 1e-6 or abs(value) >= HUGE:
        return f"{value * scale:.6g} ± {half * scale:.2g}{unit}"
    decimals = min(6, max(0, 1 - math.floor(math.log10(half * scale))))
    decimals = _count_decimals(value) if key in COUNTS and key != "macs" else decimals
    return f"{value * scale:,.{decimals}f} ± {half * scale:,.{decimals}f}{unit}"


# How many characters of a value a table shows, and of a line a terminal.
LONGEST_CELL, LONGEST_LINE = 400, 4000


def printable(text: str, limit: int = 160) -> str:
    """Return text from a file as one line of at most ``limit`` characters, without control characters.

    All that a stranger may have written reaches the terminal through here.
    """
    return "".join(char if char.isprintable() else "?" for char in text[:limit])


def printable_lines(text: str, limit: int | None = LONGEST_LINE) -> str:
    """Return a text of several lines, each `printable`. Bytes of names that are no UTF-8 stay as they are."""
    lines = (line if limit is None else line[:limit] for line in text.split("\n"))
    return "\n".join(line if line.isprintable() else _printable_line(line) for line in lines)


def _printable_line(line: str) -> str:
    parts = re.split("([\udc80-\udcff]+)", line)
    return "".join(part if number % 2 else printable(part, len(part)) for number, part in enumerate(parts))


def markdown_text(text: str) -> str:
    """Return a text as Markdown that shows it as it is, on one line, without control characters."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", printable(text, len(text)))


def markdown_code(text: str, language: str = "") -> str:
    """Return a text as a block of code in Markdown, which nothing in the text ends."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{printable_lines(text, None)}\n{fence}"


def counted(count: float, what: str) -> str:
    """Return a number of things as text: ``1 epoch``, ``1,200 steps``, ``0.25 epochs``."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {what}{'s' * (count != 1)}"


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
