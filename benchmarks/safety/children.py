"""Commands of kdtool in forked processes, in which something goes wrong."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import importlib
import json
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Python's audit events of operations that change files; `open` counts if it is for writing.
CHANGES = frozenset({"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"})

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Prepare = Callable[[], None]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or minus the number of the signal that killed it."""

    code: int
    out: str
    err: str
    operations: int = 0
    """How many operations changed files below the directory, in all processes of the command."""
    modules: tuple[str, ...] = ()
    """What the command imported."""
    group: int = 0
    """The processes of the command."""


class Operations:
    """Counts the operations that change files below a directory, and does something before one of them.

    The number is in memory that the processes of a command share.
    """

    def __init__(self) -> None:
        self.root, self.at, self.shared = "", 0, mmap.mmap(-1, 8)
        self.act: Callable[[], None] = lambda: None
        sys.addaudithook(self)

    @property
    def count(self) -> int:
        """How many operations there were."""
        number: int = struct.unpack("<q", self.shared[:8])[0]
        return number

    @count.setter
    def count(self, number: int) -> None:
        self.shared[:8] = struct.pack("<q", number)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Look at an event."""
        if not self.root:
            return
        changes = event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING)
        if not changes or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.join(os.getcwd(), os.fsdecode(arguments[0]))
        if path.startswith(self.root):
            self.count += 1
            if self.count == self.at or self.at < 0:
                self.act()


OPERATIONS = Operations()


def nothing() -> None:
    """Let nothing go wrong."""


def kill_before(number: int, *, alone: bool = False) -> Prepare:
    """Kill all processes of the command before the operation of that number, or ``alone`` the one that does it."""

    def kill() -> None:
        (os.kill if alone else os.killpg)(os.getpid() if alone else os.getpgrp(), signal.SIGKILL)

    def prepare() -> None:
        OPERATIONS.at, OPERATIONS.act = number, kill

    return prepare


def fail_at(number: int, code: int) -> Prepare:
    """Let the operation of that number fail; -1 stands for all of them."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    def prepare() -> None:
        OPERATIONS.at, OPERATIONS.act = number, fail

    return prepare


def limited(what: int, amount: int, *, more: bool = False) -> Prepare:
    """Limit a resource; with ``more`` to that much more than the process has of memory."""

    def prepare() -> None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if more else 0
        resource.setrlimit(what, (taken + amount,) * 2)

    return prepare


def descriptors(left: int) -> Prepare:
    """Leave so many descriptors for files."""

    def prepare() -> None:
        used = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1 + left,) * 2)

    return prepare


def stream(number: int, path: str | None) -> Prepare:
    """Redirect a stream to a file, or close it."""

    def prepare() -> None:
        if path is None:
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        else:
            descriptor = os.open(path, os.O_WRONLY)
            os.dup2(descriptor, number)

    return prepare


def broken_pipe() -> None:
    """Make stdout a pipe whose reader is gone."""
    receive, send = os.pipe()
    os.close(receive)
    os.dup2(send, 1)


def without(*names: str) -> Prepare:
    """Remove variables of the environment."""

    def prepare() -> None:
        for name in names:
            os.environ.pop(name, None)

    return prepare


def run(
    words: Sequence[str], directory: Path, prepare: Prepare = nothing, after: float | None = None, processes: int = 1
) -> Ended:
    """Run a command in a directory, in so many processes; ``after`` so many seconds all are killed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as told:
        child = os.fork()
        if child == 0:
            _child(words, directory, prepare, (out.fileno(), err.fileno(), told.fileno()), processes)
        with contextlib.suppress(OSError):  # the child does the same; who comes first is not known
            os.setpgid(child, child)
        status = _status(child, after)
        texts = []
        for file in (out, err, told):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        modules = tuple(json.loads(texts[2])) if texts[2] else ()
        return Ended(os.waitstatus_to_exitcode(status), texts[0], texts[1], OPERATIONS.count, modules, child)


def end(group: int) -> None:
    """Kill what is left of the processes of a command."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _status(child: int, after: float | None) -> int:
    """Wait until a process ends, and kill its group after so many seconds."""
    if after is not None:
        deadline = time.monotonic() + after
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.001)
        end(child)
    return os.waitpid(child, 0)[1]


def import_all(names: Sequence[str]) -> bool:
    """Import modules, so that the next processes have them, and return whether there were any to import."""
    before = len(sys.modules)
    for name in names:
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(BaseException):
                importlib.import_module(name)
    return len(sys.modules) > before


def _child(
    words: Sequence[str], directory: Path, prepare: Prepare, files: tuple[int, int, int], processes: int
) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        faulthandler.disable()
        os.chdir(directory)
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        for number, name in ((1, "stdout"), (2, "stderr")):
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        others = _others(processes) if processes > 1 else []
        OPERATIONS.root, OPERATIONS.count = f"{directory}/", 0
        prepare()
        code = run_here(words)
        first = os.environ.get("RANK", "0") == "0"
        for other in others:
            os.waitpid(other, 0)
        if first and prepare is nothing:  # where something is limited this would fail too
            os.write(files[2], json.dumps(sorted(sys.modules)).encode())
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(files[1], f"\nTraceback of {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def run_here(words: Sequence[str]) -> int:
    """Run a command in this process, and return its exit code."""
    try:
        from kdtool.cli.main import cli

        cli.main(list(words))
        return 0
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    finally:
        OPERATIONS.root = ""
        for standard in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                standard.flush()


def _others(processes: int) -> list[int]:
    """Fork the other processes of a command, and say to each which one it is, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, TORCH_CPP_LOG_LEVEL="ERROR")
    os.environ.update(WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes), RANK="0", LOCAL_RANK="0")
    others = []
    for rank in range(1, processes):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            return []
        others.append(child)
    return others


NO_SPACE, READ_ONLY, BROKEN, FORBIDDEN = errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES
