"""A process that works on one network; its time, its memory and its end are watched from outside."""

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

_POLL_SECONDS = 0.1
_HANG_FACTOR = 10
"""A cell hangs if its wall-clock time exceeds its limit of CPU seconds by this factor."""
_BEGIN_SECONDS = 900
"""The time that a process has to begin its first cell."""
_LOG = "log.txt"
# The process from which all workers are forked imports these modules once. The last network is thus tried with the same
# code as the first, even if the files change in the meantime.
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
    """The limits of a worker: CPU seconds for one cell, and gigabytes of memory.

    CPU time is used, so that a busy machine gives the same results as an idle one.
    """

    seconds: float
    gigabytes: float


def prepare() -> None:
    """Prepare for workers; each computes on one thread, since several work in parallel."""
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
    """Run ``task``, a function of `trying`, in a new process, and call ``keep`` with the outcome of each cell.

    A process that exceeds a limit is killed. Its current cell has failed, and the cells after that are left for another
    process. At least one cell is kept.

    Raises:
        Error: the process did not begin a cell, which says nothing about the network.
    """
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(task, entry, folder, cells, sender), daemon=True)
    process.start()
    sender.close()
    current, done, started, cpu_started = "", 0, time.monotonic(), 0.0
    reason = ""
    while not reason:
        if receiver.poll(_POLL_SECONDS):
            try:
                cell, outcome = receiver.recv()
            except EOFError:
                break
            started, cpu_started = time.monotonic(), _cpu_seconds(process.pid)
            current = cell if outcome is None else ""
            if outcome is not None:
                keep(cell, outcome)
                done += 1
        reason = _excess(process, started, cpu_started, limits, begun=bool(current))
    if reason:
        process.kill()
    process.join()
    if not current and not done:
        raise Error(f"{entry.spec}: a worker did not begin ({reason or _end(process, folder)})")
    if current:
        seconds = round(time.monotonic() - started, 2)
        keep(current, {"status": "failed", "reason": reason or _end(process, folder), "seconds": seconds})


def _excess(process: BaseProcess, started: float, cpu_started: float, limits: Limits, *, begun: bool) -> str:
    """Return which limit a worker exceeds, or an empty string; a worker that has not begun a cell may take longer."""
    if not begun:
        return "" if time.monotonic() - started < _BEGIN_SECONDS else f"no cell began within {_BEGIN_SECONDS} s"
    if _cpu_seconds(process.pid) - cpu_started > limits.seconds:
        return f"timeout: computed for more than {limits.seconds:g} s"
    if time.monotonic() - started > _HANG_FACTOR * (limits.seconds + 1):
        return f"timeout: took more than {_HANG_FACTOR * (limits.seconds + 1):g} s"
    if _resident_bytes(process.pid) > limits.gigabytes * 1e9:
        return f"out of memory: took more than {limits.gigabytes:g} GB"
    return ""


def _cpu_seconds(pid: int | None) -> float:
    """Return the CPU seconds of a process; 0 if it no longer exists."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _resident_bytes(pid: int | None) -> int:
    """Return the resident memory of a process, in bytes; 0 if the system does not report it.

    It is measured from outside. A limit inside the process would make allocations fail, which looks like a broken
    network.
    """
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _end(process: BaseProcess, folder: Path) -> str:
    """Return how a process ended, with the last line of its log."""
    code = process.exitcode or 0
    lines = (
        (folder / _LOG).read_text(encoding="utf-8", errors="replace").splitlines() if (folder / _LOG).exists() else []
    )
    ended = f"crashed: {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return ": ".join([ended, *lines[-1:]])


def _main(task: str, entry: Entry, folder: Path, cells: Sequence[str], sender: Connection) -> None:
    """Run a task in a new process, with its output in the log of the folder."""
    _die_with_parent()
    log = os.open(folder / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    faulthandler.enable()
    from benchmarks.coverage import trying

    # An export makes much garbage; looking for it among the imported objects took a sixth of the time.
    gc.freeze()
    getattr(trying, task)(entry, folder, cells, lambda cell, outcome: sender.send((cell, outcome)))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
