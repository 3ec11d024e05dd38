"""Results of many attempts in a JSON file, so that a series can be stopped and continued."""

from __future__ import annotations

import functools
import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERSIONS = ("kdtool", "torch", "timm", "torchvision", "onnxruntime", "numpy", "pillow")


@functools.cache
def commit() -> str:
    """Return the commit of this repository, with a + if files are not committed; empty where there is no git."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class Rows:
    """Rows with a key each; without a file they are only in memory."""

    def __init__(self, path: Path | None) -> None:
        """Read what is there."""
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self.rows = json.loads(path.read_text())

    def has(self, key: dict[str, Any]) -> bool:
        """Return whether there is a row with the key."""
        return any(key.items() <= row.items() for row in self.rows)

    def add(self, key: dict[str, Any], **values: Any) -> None:
        """Add a row, with the date, the commit and the versions, and write the file."""
        versions = {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
        self.rows.append({**key, **values, "date": date, "commit": commit(), "versions": versions})
        if self.path is not None:
            self.path.write_text(json.dumps(self.rows, indent=1) + "\n")

    def sum(self, name: str) -> int:
        """Return the sum of a number, or of the lengths of a list."""
        return sum(len(row[name]) if isinstance(row[name], list) else row[name] for row in self.rows)
