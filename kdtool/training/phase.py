"""The files of one phase of a run: its state while it runs, its result when it is done."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from kdtool.errors import Error
from kdtool.utils.files import slug, write_text
from kdtool.utils.strict_json import dumps
from kdtool.utils.tensor_files import safe_load, write_tensors

LOG = "metrics.jsonl"
"""The file of a run with the metrics of its epochs, one line of JSON for each."""

FORMAT = 4
"""The number of the format of a phase's files. A release that changes it refuses the runs of earlier ones."""

# Saving may take this share of the time since the last save. What is lost in a kill is cheap to repeat.
SAVING_SHARE = 0.02


class Store(Protocol):
    """The place where a phase keeps its state, so that it can resume after a kill."""

    def load(self) -> dict[str, Any] | None:
        """Return the last saved state, or None."""

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save the state, if enough time has passed."""

    def log(self, row: dict[str, Any]) -> None:
        """Log the metrics of an epoch."""


class Phase:
    """The files of one phase: its state while it runs, its result when it is done."""

    def __init__(self, directory: Path, name: str, key: str, log: Callable[[dict[str, Any]], None]) -> None:
        """Open the phase ``name`` of the run in ``directory``.

        ``key`` is the identity of the phase: files with another key belong to another one. ``log`` is called with the
        metrics of each epoch.
        """
        self.run_directory, self.name, self.key, self.log = directory, name, key, log
        self.directory = directory / "phases" / slug(name)
        self.saved_at = time.monotonic()
        self.saving_took = 0.0

    def load_result(self) -> dict[str, Any] | None:
        """Return the result of the phase, or None if it is not finished."""
        return self._load("result.pt")

    def save_result(self, result: dict[str, Any]) -> None:
        """Write the result and remove the state: the phase is finished."""
        self._write("result.pt", result)
        (self.directory / "state.pt").unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, and remove the epochs from the log that came after it."""
        state = self._load("state.pt")
        _forget_epochs(self.run_directory, self.name, state["state"]["epoch"] if state else 0)
        return state

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save the state, unless saving takes more than a small share of the time."""
        now = time.monotonic()
        if self.saving_took > SAVING_SHARE * (now - self.saved_at):
            return
        self._write("state.pt", state())
        self.saved_at = time.monotonic()
        self.saving_took = self.saved_at - now

    def _write(self, name: str, content: dict[str, Any]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        write_tensors(self.directory / name, {"format": FORMAT, "key": self.key, **content})

    def _load(self, name: str) -> dict[str, Any] | None:
        path = self.directory / name
        if not path.exists():
            return None
        content: dict[str, Any] = safe_load(path)
        if content.pop("format", None) != FORMAT:
            raise Error(
                f"{self.run_directory}: phase {self.name!r} was begun by another release of kdtool"
                "; finish it with that release, or start again with --force"
            )
        if content.pop("key") != self.key:
            raise Error(
                f"{self.run_directory}: phase {self.name!r} was begun with another teacher, student or options"
                "; start again with --force"
            )
        return content


def read_epochs(directory: Path) -> list[dict[str, Any]]:
    """Return the logged metrics of a run's epochs; an empty list if there is no log.

    Raises:
        Error: the log is damaged.
    """
    path, rows = directory / LOG, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):  # a kill may have cut the last line
            row = json.loads(line)
            if not isinstance(row, dict) or "phase" not in row:
                raise Error(f"{path}: is damaged: {line[:60]!r} is not the metrics of an epoch")
            rows.append(row)
    return rows


def _forget_epochs(directory: Path, phase: str, after: int) -> None:
    if not (directory / LOG).exists():
        return
    kept = [row for row in read_epochs(directory) if row["phase"] != phase or row["epoch"] <= after]
    write_text(directory / LOG, "".join(dumps(row) + "\n" for row in kept))
