"""Commands of kdtool in forked processes, in which something goes wrong."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import os
import resource
import signal
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
    """How many operations changed files below the directory."""


class Operations:
    """Counts the operations that change files below a directory, and does something before one of them."""

    def __init__(self) -> None:
        self.root, self.count, self.at = "", 0, 0
        self.act: Callable[[], None] = lambda: None
        sys.addaudithook(self)

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


def kill_before(number: int) -> Prepare:
    """Kill the process before the operation of that number."""

    def prepare() -> None:
        OPERATIONS.at, OPERATIONS.act = number, lambda: os.kill(os.getpid(), signal.SIGKILL)

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


def run(words: Sequence[str], directory: Path, prepare: Prepare = nothing, after: float | None = None) -> Ended:
    """Run a command in a directory; ``after`` so many seconds the process is killed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as count:
        child = os.fork()
        if child == 0:
            _child(words, directory, prepare, (out.fileno(), err.fileno(), count.fileno()))
        if after is not None:
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err, count):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Ended(os.waitstatus_to_exitcode(status), texts[0], texts[1], int(texts[2] or 0))


def _child(words: Sequence[str], directory: Path, prepare: Prepare, files: tuple[int, int, int]) -> None:
    code = 70
    try:
        faulthandler.disable()
        os.chdir(directory)
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        for number, name in ((1, "stdout"), (2, "stderr")):
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        OPERATIONS.root, OPERATIONS.count = f"{directory}/", 0
        prepare()
        try:
            from kdtool.cli.main import cli

            cli.main(list(words))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            OPERATIONS.root = ""
            for standard in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    standard.flush()
            os.write(files[2], str(OPERATIONS.count).encode())
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(files[1], f"\nTraceback of {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


NO_SPACE, READ_ONLY, BROKEN, FORBIDDEN = errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES
