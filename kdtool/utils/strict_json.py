"""JSON that every reader takes: numbers that are not finite become null, where Python would write NaN or Infinity.

Texts of strangers, in JSON and in TOML, are read within limits.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdtool.utils.files import TEXT_LIMIT, read_text

# tomllib takes time that grows with the square of the length for some texts.
TOML_LIMIT = 1 << 20


def dumps(value: Any, **options: Any) -> str:
    """Return a value as JSON; paths become text. ``options`` are those of `json.dumps`."""
    return json.dumps(plain(value), allow_nan=False, **options)


def text_hash(value: Any) -> str:
    """Return a hash of a value as JSON, 16 hexadecimal digits; what is no JSON counts as its text."""
    return hashlib.sha256(dumps(value, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def loads(text: str | bytes) -> Any:
    """Return the value of a text in JSON.

    Raises:
        ValueError: it is none, or it is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def load(path: Path, limit: int = TEXT_LIMIT) -> Any:
    """Return the value of a file in JSON of at most ``limit`` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, no regular file, or too large.
    """
    return loads(read_text(path, limit).removeprefix("\ufeff"))


def load_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file of at most a MiB.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML, no regular file, or too large.
    """
    try:
        return tomllib.loads(read_text(path, TOML_LIMIT).removeprefix("\ufeff"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def plain(value: Any) -> Any:
    """Return a value with null in place of numbers that are not finite, and lists in place of tuples."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
