"""Whether a quantised file is worth having, and the lines that say what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def verdict(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, latency: Mapping[str, Any] | None
) -> tuple[bool | None, str]:
    """Return whether a file is worth having beside the float file, None if that cannot be known, and the reason.

    ``before`` and ``after`` are the accuracies of the float and the quantised file (``error`` and ``images``),
    ``latency`` that of the quantised file against the float one (see `kdtool.exporting.measure_latency`). It is not
    worth having if it is slower, or if it loses more than it gains: if its errors grow by a larger factor than its
    latency shrinks by, error_after / error_before >= latency_before / latency_after. An error of no image counts as one
    image.
    """
    if latency is None or latency["ratio"] is None:
        return None, "its latency was not measured"
    ratio = latency["ratio"]
    if ratio > 1 + latency["noise"]:
        return False, f"it takes {ratio:.2f} times as long as the float file"
    faster = ratio < 1 - latency["noise"]
    speed = f"it takes {ratio:.2f} of the float file's time" if faster else "it is as fast as the float file"
    if before is None or after is None:
        return True, speed
    least = 1 / before["images"]
    growth = max(after["error"], least) / max(before["error"], least)
    if after["error"] > before["error"] and growth * ratio >= 1:
        return False, (
            f"it loses more than it gains: {growth:.2f} times the errors ({before['error']:.2%} to "
            f"{after['error']:.2%}) for {ratio:.2f} of the time"
        )
    return True, f"{speed} at {after['accuracy'] - before['accuracy']:+.2%} accuracy"


def named(names: tuple[str, ...], most: int = 8) -> str:
    """Return names as text, the first of them if there are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
