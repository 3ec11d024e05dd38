"""One attempt: a reader is given a file in a process of its own, which is watched.

The process is forked after everything is imported, and makes many attempts, so that one takes milliseconds. An audit
hook sees what Python does for it: programs that start, files that are written, code that is compiled.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import re
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU_SECONDS = 5
MEMORY_BYTES = 1 << 30

# Events of Python's audit hooks that no reader may cause. Opening a file is looked at apart.
FORBIDDEN = frozenset(
    {
        *(
            "os.system",
            "os.exec",
            "os.fork",
            "os.forkpty",
            "os.posix_spawn",
            "os.spawn",
            "subprocess.Popen",
            "pty.spawn",
        ),
        *("socket.connect", "socket.bind", "urllib.Request", "ftplib.connect", "http.client.connect"),
        *(
            "os.remove",
            "os.rename",
            "os.rmdir",
            "os.mkdir",
            "os.truncate",
            "os.chmod",
            "os.chown",
            "os.link",
            "os.symlink",
        ),
        *("shutil.rmtree", "shutil.move", "shutil.copyfile", "exec", "code.__new__"),
        *("ctypes.dlopen", "pickle.find_class"),
    }
)

UNEXPECTED = re.compile(r"unexpected \w+Error")

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# pickle.find_class is allowed for what torch's reader of plain tensors needs.
PLAIN_CLASSES = frozenset(
    {"torch", "collections", "torch._utils", "torch.storage", "_codecs", "numpy", "torch.serialization"}
)


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt."""

    kind: str
    """``read``, ``refused`` (one line), or what was wrong."""
    text: str = ""
    cpu: float = 0.0
    """Seconds."""
    memory: int = 0
    """Bytes that the process took beyond what it began with."""

    @property
    def good(self) -> bool:
        """Whether the promise was kept."""
        return self.kind in ("read", "refused")


class Watch:
    """The audit hook, which cannot be removed and so works only while it is on."""

    def __init__(self) -> None:
        self.on, self.seen = False, ""
        self.allowed = ""
        """The directory of a cache, in which a reader may write."""
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Look at an event."""
        if not self.on:
            return
        named = arguments[:1] if event == "open" else arguments
        paths = [os.fsdecode(value) for value in named if isinstance(value, str | bytes | os.PathLike)]
        if self.allowed and paths and all(path.startswith(self.allowed) for path in paths):
            return
        if event in FORBIDDEN:
            if event == "pickle.find_class" and str(arguments[0]).split(".")[0] in PLAIN_CLASSES:
                return
            if event == "os.chmod" and isinstance(arguments[0], int):
                return  # of a lock, by its descriptor: that the file was opened has been seen
            if event == "exec" or event == "code.__new__":
                # Classes and templates of libraries are compiled from text of their own.
                return
            self.seen = self.seen or f"{event} {arguments!r:.200}"
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if writes and not str(arguments[0]).startswith("/dev/"):
            self.seen = self.seen or f"writes {arguments[0]!r:.200}"


WATCH = Watch()


def attempt(reader: Callable[[Path], Any], path: Path) -> Outcome:
    """Let a reader read a file in a forked process, and return what became of it."""
    return attempts(reader, path, [path.read_bytes()])[0]


def attempts(reader: Callable[[Path], Any], path: Path, contents: Sequence[bytes]) -> list[Outcome]:
    """Let a reader read one content of a file after the other, and return what became of each.

    They share a process until something bad happens, which ends it.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(contents):
        outcomes += _in_one_process(reader, path, contents[len(outcomes) :])
    return outcomes


def _in_one_process(reader: Callable[[Path], Any], path: Path, contents: Sequence[bytes]) -> list[Outcome]:
    """Return the outcomes of the first contents, up to the first bad one."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _quietly(reader, path, contents, send)
    os.close(send)
    outcomes: list[Outcome] = []
    hangs = False
    for line in _lines(receive):
        hangs = line is None
        if line is not None:
            outcomes.append(_judged(Outcome(**json.loads(line))))
        if len(outcomes) == len(contents) or hangs or not outcomes[-1].good:
            break
    os.close(receive)
    if hangs or (outcomes and not outcomes[-1].good):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    if len(outcomes) == len(contents) or (outcomes and not outcomes[-1].good):
        return outcomes
    cpu = used.ru_utime + used.ru_stime - sum(outcome.cpu for outcome in outcomes)
    if hangs:
        return [*outcomes, Outcome("hangs", f"no answer in {10 * CPU_SECONDS} s", cpu)]
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    what = signal.Signals(number).name if number else f"exit code {os.WEXITSTATUS(status)}"
    return [*outcomes, Outcome("hangs" if what == "SIGXCPU" else "crashes", what, cpu)]


def _judged(outcome: Outcome) -> Outcome:
    if outcome.good and outcome.cpu > CPU_SECONDS:
        return Outcome("too slow", outcome.text, outcome.cpu, outcome.memory)
    if outcome.good and outcome.memory > MEMORY_BYTES:
        return Outcome("too large", outcome.text, outcome.cpu, outcome.memory)
    return outcome


def _quietly(reader: Callable[[Path], Any], path: Path, contents: Sequence[bytes], send: int) -> None:
    """Do the work of the child, send its answers, and end the process without any clean-up of the parent's."""
    from kdtool import Error

    try:
        faulthandler.disable()
        gc.freeze()
        devnull = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(devnull, stream)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 4 * MEMORY_BYTES,) * 2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for content in contents:
            path.write_bytes(content)
            answer = _inside(reader, path, Error)
            most = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            memory = (max(most) - before) * 1024
            os.write(send, json.dumps({**answer, "memory": max(0, memory)}).encode() + b"\n")
    finally:
        os._exit(0)


def _inside(reader: Callable[[Path], Any], path: Path, refusal: type[Exception]) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.process_time()
    limit = int(started) + 2 * CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    WATCH.on, WATCH.seen, WATCH.allowed = True, "", os.environ.get("KDTOOL_CACHE", "")
    try:
        reader(path)
        kind, text = "read", ""
    except refusal as error:
        text = str(error)
        kind = "refused" if text and text.isprintable() and not UNEXPECTED.search(text) else "is not one line"
    except BaseException as error:
        kind, text = "raises", f"{type(error).__name__}: {error}"[:400]
    WATCH.on = False
    if WATCH.seen:
        kind, text = "acts", WATCH.seen
    gc.collect()  # a process that the reader began ends with its last object
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"kind": kind, "text": text[:2000], "cpu": time.process_time() - started + children}


def _lines(receive: int) -> Iterator[bytes | None]:
    """Yield each line that the child writes; None, and no more, if the next one does not come in time."""
    content = b""
    while True:
        ready, _, _ = select.select([receive], [], [], 10 * CPU_SECONDS)
        chunk = os.read(receive, 1 << 16) if ready else b""
        if not chunk:
            if not ready:
                yield None
            return
        *lines, content = (content + chunk).split(b"\n")
        yield from lines
