"""A process at work on one network, watched from outside: its time, its memory, its end."""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from benchmarks.coverage.networks import Entry
from kdtool import Error

_LOOK_SECONDS = 0.1
_HANGING = 10
"""After so many times the seconds of computing that a cell may take, by the clock, it is taken to hang."""
_BEGIN_SECONDS = 900
_LOG = "log.txt"
# Imported once, by the process that all workers are forked from: all of what is tried, so that the same code is tried
# on the last network as on the first, whatever becomes of the files meanwhile.
_PRELOAD = [
    "benchmarks.coverage.trying",
    *(
        "kdtool.surgery.depth.drop",
        "kdtool.surgery.channels.remove",
        "kdtool.models.stem",
        "kdtool.surgery.width.halve",
    ),
    *("kdtool_refiners.depth", "kdtool_refiners.halve"),
    *("kdtool_teachers.timm_models", "kdtool_teachers.torchvision_models", "kdtool_teachers.torchvision_adapt"),
    *("timm", "torchvision", "onnx", "onnxruntime", "onnxscript"),
]


@dataclass(frozen=True)
class Limits:
    """What a worker may take: seconds of computing for one cell, and gigabytes of memory.

    Its own time is counted, not that of the clock: a busy machine finds what an idle one does.
    """

    seconds: float
    gigabytes: float


def prepare() -> None:
    """Make ready for workers; each computes on one thread, for there are as many of them as jobs."""
    os.environ["OMP_NUM_THREADS"] = "1"
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOAD)


def work(
    task: str,
    entry: Entry,
    folder: Path,
    cells: Sequence[str],
    limits: Limits,
    keep: Callable[[str, dict[str, Any]], None],
) -> None:
    """Have a new process do ``task``, a function of `trying`, and ``keep`` what it finds of each cell.

    A process that takes too much is killed, and the cell that it was at has failed; those after it are left for
    another process. At least one cell is kept.

    Raises:
        Error: the process did not even begin, which says nothing about the network.
    """
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(task, entry, folder, cells, theirs), daemon=True)
    process.start()
    theirs.close()
    current, done, started, busy = "", 0, time.monotonic(), 0.0
    reason = ""
    while not reason:
        if ours.poll(_LOOK_SECONDS):
            try:
                cell, found = ours.recv()
            except EOFError:
                break
            started, busy = time.monotonic(), _computed_seconds(process.pid)
            current = cell if found is None else ""
            if found is not None:
                keep(cell, found)
                done += 1
        reason = _excess(process, started, busy, limits, begun=bool(current))
    if reason:
        process.kill()
    process.join()
    if not current and not done:
        raise Error(f"{entry.spec}: a worker did not begin ({reason or _end(process, folder)})")
    if current:
        seconds = round(time.monotonic() - started, 2)
        keep(current, {"status": "failed", "reason": reason or _end(process, folder), "seconds": seconds})


def _excess(process: BaseProcess, started: float, busy: float, limits: Limits, *, begun: bool) -> str:
    """Return what a worker takes too much of, or an empty string; one that has not begun has time to."""
    if not begun:
        return "" if time.monotonic() - started < _BEGIN_SECONDS else f"nothing came for {_BEGIN_SECONDS} s"
    if _computed_seconds(process.pid) - busy > limits.seconds:
        return f"timeout: computed for more than {limits.seconds:g} s"
    if time.monotonic() - started > _HANGING * (limits.seconds + 1):
        return f"timeout: took more than {_HANGING * (limits.seconds + 1):g} s"
    if _resident_bytes(process.pid) > limits.gigabytes * 1e9:
        return f"out of memory: took more than {limits.gigabytes:g} GB"
    return ""


def _computed_seconds(pid: int | None) -> float:
    """Return how long a process has computed, in the seconds of one core; 0 where it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _resident_bytes(pid: int | None) -> int:
    """Return the memory that a process has; 0 where the system does not tell.

    Looked at from outside: inside, an allocation that fails looks like a network that does not run.
    """
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _end(process: BaseProcess, folder: Path) -> str:
    """Return how a process ended, with the last that it said."""
    code = process.exitcode or 0
    said = (
        (folder / _LOG).read_text(encoding="utf-8", errors="replace").splitlines() if (folder / _LOG).exists() else []
    )
    ended = f"crashed: {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return ": ".join([ended, *said[-1:]])


def _main(task: str, entry: Entry, folder: Path, cells: Sequence[str], tell: Connection) -> None:
    """Work in a new process, whose output goes into the folder's log."""
    _die_with_parent()
    log = os.open(folder / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    faulthandler.enable()
    from benchmarks.coverage import trying

    # An export makes much that is soon garbage; a sixth of its time went into looking for it among what was imported.
    gc.freeze()
    getattr(trying, task)(entry, folder, cells, lambda cell, found: tell.send((cell, found)))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
