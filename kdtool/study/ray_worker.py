"""What a worker of Ray does for a study: it runs one command, in its own process, so that both live and die together.

A task may be run again at any time, on any machine: if its worker died, or if only its answer was lost.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdtool.study.places import reason
from kdtool.study.record import wait_for
from kdtool.study.start import Start
from kdtool.training.run_directory import directory_of
from kdtool.utils.files import temporary_folder, write_files
from kdtool.utils.ray_cluster import taken


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster: its name, its version of kdtool, and whether it sees the study's directory."""

    name: str
    version: str
    sees: bool


@dataclass(frozen=True)
class Task:
    """A command of a study, as a worker gets it."""

    start: Start
    words: tuple[str, ...]
    """The words of its command line, without ``-o``, where the study's directory is seen."""
    exports: bool
    token: str
    """A file in the study's directory."""
    cwd: str
    environment: dict[str, str]
    elsewhere: tuple[str, ...] = ()
    """Its words where the directory is not seen: the files are beside each other, under these names."""
    inputs: list[Any] = field(default_factory=list)
    """A reference to the content of these files. Ray resolves references in a list only when they are asked for."""
    data: list[Any] = field(default_factory=list)
    """A reference to the content of the files of KDTOOL_DATA."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and the files that it made, by name, if they have to be brought home."""

    code: int
    seconds: float
    error: str | None
    files: dict[str, bytes] = field(default_factory=dict)


def look(token: str) -> Machine:
    """Return what this machine is."""
    return Machine(socket.gethostname(), version("kdtool"), Path(token).exists())


def run(task: Task) -> Outcome:
    """Run a command: in the study's directory if it is seen here, else in a temporary one."""
    if Path(task.token).exists():
        directory = Path(task.token).parent
        here = task.cwd if Path(task.cwd).is_dir() else str(directory)
        wait_for(directory_of(directory / task.start.file))
        task.start.begin_in(directory)
        return _in(directory, here, task, task.words, task.environment)
    if not task.elsewhere:
        error = f"{socket.gethostname()} does not see {Path(task.token).parent}; it joined the cluster after the start"
        return Outcome(1, 0.0, f"{error}; run the same command again")
    with temporary_folder("kdtool-ray") as directory:
        write_files(directory, taken(task.inputs[0]))
        before = {path for path in directory.rglob("*") if path.is_file()}
        environment = dict(task.environment)
        if task.data and not os.path.isdir(environment.get("KDTOOL_DATA", "")):
            write_files(directory / "data", taken(task.data[0]))
            before |= set((directory / "data").rglob("*"))
            environment["KDTOOL_DATA"] = str(directory / "data")
        outcome = _in(directory, str(directory), task, task.elsewhere, environment)
        made = [path for path in directory.rglob("*") if path.is_file() and path not in before and _is_wanted(path)]
        files = {str(path.relative_to(directory)): path.read_bytes() for path in made}
        return Outcome(outcome.code, outcome.seconds, outcome.error, files)


def _is_wanted(path: Path) -> bool:
    """Return whether a new file goes home; a run that failed leaves its cache, which is large and made again."""
    return path.name != "lock" and not (path.parent.name == "cache" and path.parent.parent.suffix == ".run")


def _in(directory: Path, here: str, task: Task, words: Sequence[str], environment: dict[str, str]) -> Outcome:
    """Run a command whose files are in ``directory``, and go on with what an earlier attempt left there."""
    target, started = directory / task.start.file, time.monotonic()
    resume = directory_of(target).is_dir()
    for path in [] if resume else task.start.outputs(directory):
        path.unlink(missing_ok=True)  # of an attempt whose answer was lost
    line = [*words, "-o", str(target), *(["--json"] * task.exports), *(["--resume"] * resume)]
    log = directory / f"{task.start.name}.log"
    with open(log, "ab") as said:
        said.write(f"{task.start.name}: on {socket.gethostname()}, process {os.getpid()}\n".encode())
        said.flush()
        begin = said.tell()
        # What an export measures goes beside its file.
        printed = target.with_suffix(".json") if task.exports else Path(os.devnull)
        with _surrounded(here, environment), _streams(said.fileno(), printed):
            code = kdtool(line)
    with open(log, "rb") as whole:
        whole.seek(begin)
        error = reason(code, whole.read().decode(errors="replace")) if code else None
    return Outcome(code, time.monotonic() - started, error)


def kdtool(words: Sequence[str]) -> int:
    """Run ``python -m kdtool`` in this process, and return its exit code."""
    before, sys.argv = sys.argv, ["kdtool", *words]
    try:
        runpy.run_module("kdtool", run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return 0


@contextlib.contextmanager
def _surrounded(here: str, environment: dict[str, str]) -> Iterator[None]:
    """Work in the directory ``here``, with these variables of kdtool and no others, while the block runs."""
    before = dict(os.environ)
    for name in before:
        if name.startswith("KDTOOL_"):
            del os.environ[name]
    os.environ.update(environment)
    try:
        with contextlib.chdir(here):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _streams(log: int, printed: Path) -> Iterator[None]:
    """Write all that goes to stderr, that of libraries too, to a file, and what goes to stdout to another."""
    stdin, saved = sys.stdin, os.dup(2)
    os.dup2(log, 2)
    try:
        with (
            open(os.devnull) as nothing,
            open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False) as said,
            open(printed, "w", encoding="utf-8") as output,
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(output),
        ):
            sys.stdin = nothing
            yield
    finally:
        sys.stdin = stdin
        os.dup2(saved, 2)
        os.close(saved)
