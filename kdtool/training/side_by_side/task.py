"""What a worker of Ray does with one training of a run, and how its files come home.

A task may be run again at any time, on any machine. Where the run's directory is seen, it goes on from the last epoch
that was saved; elsewhere it begins with the files that were sent.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kdtool.errors import Error
from kdtool.plugins.own_code import bring_in
from kdtool.plugins.trust import Place
from kdtool.training.history_entry import HistoryEntry
from kdtool.training.phase import LOG, read_epochs
from kdtool.utils.files import slug, temporary_folder, write_files, write_text
from kdtool.utils.ray_cluster import taken
from kdtool.utils.strict_json import dumps
from kdtool.utils.verbosity import QUIET, verbosity

# Outputs of frozen networks, which can be computed again, and the file of a lock.
NOT_SENT = ("cache", "lock")


class OneRun(Protocol):
    """What of a run says where its files are."""

    directory: Path
    logs: Path
    caches: Path
    entry: HistoryEntry


@dataclass(frozen=True)
class Task:
    """One training of a run."""

    name: str
    """The name of its phase, or of its sub-run."""
    run: list[Any]
    """A reference to the run, then one to the function that does the training in it."""
    token: str
    """A file in the run's directory, by which a machine recognises it."""
    packages: tuple[Place, ...] = ()
    """The user's own packages, of which the run may hold objects; they are imported before it is taken."""
    files: list[Any] = field(default_factory=list)
    """A reference to the files of an earlier attempt, for a machine that does not see the directory."""


@dataclass(frozen=True)
class Answer:
    """What a training returned, or the error that ended it, and the files that have to be brought home."""

    result: Any
    error: Error | None
    where: str
    seconds: float
    cpu_seconds: float
    files: dict[str, bytes] = field(default_factory=dict)


def home_of(directory: Path, name: str) -> Path:
    """Return where a training keeps its files."""
    return directory / "phases" / slug(name)


def log_of(directory: Path, name: str) -> Path:
    """Return the directory of its log: several processes cannot write to that of the run."""
    return home_of(directory, name) / "log"


def sees(token: str) -> bool:
    """Return whether this machine sees a file."""
    return Path(token).exists()


def do(task: Task) -> Answer:
    """Do one training, in the directory of the run or, if that is not seen here, in a temporary one."""
    try:
        bring_in(task.packages)
    except Error as problem:
        return Answer(None, problem, _here(), 0.0, 0.0)
    run: OneRun = taken(task.run[0])
    if sees(task.token):
        return _done(run, task)
    with temporary_folder("kdtool-ray") as folder:
        home, run.directory = run.directory, folder
        for reference in task.files:
            write_files(run.directory, taken(reference))
        answer = _done(run, task)
        error = answer.error
        if error is not None:  # it may name a file that is brought home
            error = type(error)(str(error).replace(str(folder), str(home)))
        return dataclasses.replace(answer, error=error, files=files_in(run.directory))


def _here() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"


def _done(run: OneRun, task: Task) -> Answer:
    started, used = time.monotonic(), time.process_time()
    run.logs = log_of(run.directory, task.name)
    run.logs.mkdir(parents=True, exist_ok=True)
    # Other tasks work at the same time, and a cache has one owner.
    run.caches = home_of(run.directory, task.name) / "cache"
    result, error = None, None
    with verbosity(QUIET):
        try:
            result = taken(task.run[1])(run)
        except Error as problem:
            error = problem
    return Answer(result, error, _here(), time.monotonic() - started, time.process_time() - used)


def files_in(directory: Path) -> dict[str, bytes]:
    """Return the content of the files in a directory that a training needs, by their names."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not set(path.relative_to(directory).parts) & set(NOT_SENT)
    }


def gather_log(directory: Path, name: str) -> None:
    """Move the epochs of a training from its own log into that of the run."""
    own = log_of(directory, name)
    rows = read_epochs(own)
    if not rows:
        return
    again = {(row["phase"], row["epoch"]) for row in rows}
    kept = [row for row in read_epochs(directory) if (row["phase"], row["epoch"]) not in again]
    write_text(directory / LOG, "".join(dumps(row) + "\n" for row in [*kept, *rows]))
    (own / LOG).unlink()
