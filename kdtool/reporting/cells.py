"""The cells of a report's tables as text, in every format alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdtool.utils.formatting import FEWEST_SEEDS, shown_interval, shown_value

TITLES = {
    "accuracy_difference": "accuracy b - a",
    "optimizer": "optimiser",
    "macs": "MACs",
    "file_bytes": "bytes",
    "gzip_bytes": "bytes gzipped",
    "latency_ms": "latency in ms",
    "l2": "L2",
    "l2_sum": "L2 sum",
    "mcnemar_p": "McNemar p",
    "top5": "top-5 accuracy",
}
"""The headings of keys that are not the key with spaces."""

# The rows of a stranger may each have other keys.
MOST_COLUMNS = 128


def columns(rows: Sequence[Mapping[str, Any]], leave_out: Iterable[str] = ()) -> list[str]:
    """Return the first keys that have a text or a number in some row, without the ends of intervals."""
    filled = {key for row in rows for key, value in row.items() if is_plain(value) and value != ""}
    # In the order of all keys: the first row may have nothing in a column that stands in front.
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key in filled]
    ends = {f"{key}_{end}" for key in keys for end in ("low", "high")}
    return [key for key in keys if key not in ends and key not in leave_out][:MOST_COLUMNS]


def cell(row: Mapping[str, Any], key: str) -> str:
    """Return what a cell shows; the interval of fewer than three values is left out, since it says nothing."""
    value = row.get(key)
    if not is_plain(value):
        return ""
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    seeds = row.get("seeds")
    enough = not (isinstance(seeds, int) and seeds < FEWEST_SEEDS)
    if enough and isinstance(value, int | float) and isinstance(low, float) and isinstance(high, float):
        return shown_interval(key, value, low, high)
    return shown_value(key, value)


def is_plain(value: Any) -> bool:
    """Return whether a value can be shown in a cell."""
    return isinstance(value, str | int | float)


def is_number(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Return whether a column has numbers alone."""
    values = [row.get(key) for row in rows]
    return all(isinstance(value, int | float | None) and not isinstance(value, bool) for value in values)


def title_of(key: str) -> str:
    """Return the heading of a key."""
    return TITLES.get(key, key.replace("_", " "))
