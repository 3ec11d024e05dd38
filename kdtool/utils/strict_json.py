"""JSON that every reader takes: numbers that are not finite become null, where Python would write NaN or Infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def dumps(value: Any, **options: Any) -> str:
    """Return a value as JSON; paths become text. ``options`` are those of `json.dumps`."""
    return json.dumps(plain(value), allow_nan=False, **options)


def plain(value: Any) -> Any:
    """Return a value with null in place of numbers that are not finite, and lists in place of tuples."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
