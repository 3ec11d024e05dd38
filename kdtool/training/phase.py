"""The files of one phase of a run: its state while it runs, its result when it is done."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from kdtool.errors import Error
from kdtool.plugins.method_code import MethodError
from kdtool.training.run_directory import OTHER_RELEASE
from kdtool.utils.files import read_text, slug, write_text
from kdtool.utils.formatting import printable, shown_duration
from kdtool.utils.forms import COUNT, NUMBER, SECONDS, TEXT, Either, misfit
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps
from kdtool.utils.tensor_files import safe_load, write_tensors

LOG = "metrics.jsonl"
"""The file of a run with the metrics of its epochs, one line of JSON for each."""

# What is not finite is null, but NaN and Infinity in the files of older releases.
MEASURE = Either(None, NUMBER, float)

ROW = {"phase!": TEXT, "epoch!": COUNT, "seconds": SECONDS, "val_accuracy": MEASURE, "val_loss": MEASURE}
"""The form of a line of that file, see `misfit`; beside these there are other numbers."""

FORMAT = 6
"""The number of the format of a phase's files and of what a seed draws. A release that changes either raises it, and
refuses the runs of earlier ones: half a training by each is neither."""

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

    def __init__(
        self,
        directory: Path,
        name: str,
        key: str,
        log: Callable[[dict[str, Any]], None],
        logs: Path | None = None,
    ) -> None:
        """Open the phase ``name`` of the run in ``directory``.

        ``key`` is the identity of the phase: files with another key belong to another one. ``log`` is called with the
        metrics of each epoch, and writes them in the directory ``logs`` (None: that of the run).
        """
        self.run_directory, self.name, self.key, self.log = directory, name, key, log
        self.logs = directory if logs is None else logs
        self.directory = directory / "phases" / slug(name)
        self.saved_at = time.monotonic()
        self.saving_took = 0.0

    def begin(self, begun: set[Path]) -> None:
        """Add the phase's directory to those of the phases that the run has begun in this process.

        Raises:
            MethodError: it is there: the result of one phase would be taken for that of the other.
        """
        if self.directory in begun:
            raise MethodError(f"run.fit({self.name!r}): another phase has this name; give each a name of its own")
        begun.add(self.directory)

    def load_result(self) -> dict[str, Any] | None:
        """Return the result of the phase, or None if it is not finished or its file is damaged."""
        return self._load("result.pt")

    def save_result(self, result: dict[str, Any]) -> None:
        """Write the result and remove the state: the phase is finished."""
        self._write("result.pt", result)
        (self.directory / "state.pt").unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, and remove the epochs from the log that came after it."""
        state = self._load("state.pt")
        _forget_epochs(self.logs, self.name, state["state"]["epoch"] if state else 0)
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
        try:
            content = safe_load(path)
            if not isinstance(content, dict) or "key" not in content:
                raise Error(f"{path}: holds something else")
        except Error as error:
            say(f"{error}: phase {self.name!r} is trained again from its beginning")
            return None
        if content.pop("format", None) != FORMAT:
            raise Error(OTHER_RELEASE.format(f"{self.run_directory}: phase {self.name!r}"))
        if content.pop("key") != self.key:
            raise Error(
                f"{self.run_directory}: phase {self.name!r} was begun with another teacher, student or options"
                "; start again with --force"
            )
        return content


def epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """Return the metrics of an epoch as a line for people; its phase has at most ``epochs``."""
    shown = {"loss": "loss", "val_accuracy": "validation accuracy", "val_loss": "validation loss"}
    if "val_accuracy" in row:
        del shown["val_loss"]
    numbers = ", ".join(f"{title} {row[key]:.4g}" for key, title in shown.items() if row.get(key) is not None)
    return f"{row['phase']}: epoch {row['epoch']}/{epochs}, {numbers} ({shown_duration(row['seconds'])})"


def read_epochs(directory: Path) -> list[dict[str, Any]]:
    """Return the logged metrics of a run's epochs; an empty list if there is no log.

    Raises:
        Error: the log is damaged.
    """
    path, rows = directory / LOG, []
    for line in _lines(path):
        with contextlib.suppress(ValueError):  # a kill may have cut the last line
            row = _row(line)
            if row is None:
                raise Error(f"{path}: is damaged: {printable(line, 60)!r} is not the metrics of an epoch")
            rows.append(row)
    return rows


def count_epochs(directory: Path, result: Path | None = None) -> dict[str, int]:
    """Return how many epochs a run trained, by its logs: what its history keeps.

    ``trained_epochs`` are those of its own phases, ``trial_epochs`` those of the runs inside it, if there are any. With
    ``result``, the directory of one of these, the former are those of that run, and all others are trials. A damaged
    log is not worth the result of a training: then nothing is returned.
    """
    logs = [directory / LOG, *directory.glob(f"phases/**/{LOG}")]
    try:
        counts = {log.parent: len(read_epochs(log.parent)) for log in logs}
    except Error:
        return {}
    trained = counts.pop(directory if result is None else result, 0)
    trials = sum(counts.values())
    return {"trained_epochs": trained, **({"trial_epochs": trials} if trials else {})}


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise Error(f"{path}: cannot be read: {error}") from error


def _row(line: str) -> dict[str, Any] | None:
    """Return a line of the log; None if it is not the metrics of an epoch."""
    try:
        row = json.loads(line)
    except RecursionError:
        return None
    return row if misfit(row, ROW) is None else None


def _forget_epochs(directory: Path, phase: str, after: int) -> None:
    if not (directory / LOG).exists():
        return
    kept = []
    for line in _lines(directory / LOG):
        with contextlib.suppress(ValueError):
            row = _row(line)
            if row is not None and (row["phase"] != phase or row["epoch"] <= after):
                kept.append(row)
    write_text(directory / LOG, "".join(dumps(row) + "\n" for row in kept))
