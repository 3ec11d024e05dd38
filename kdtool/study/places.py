"""Where the commands of a study run: in processes of this machine, each with its share of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdtool.study.recipe import ONNX, Command, option_value
from kdtool.study.record import Record
from kdtool.utils.processes import usable_cores
from kdtool.utils.progress import say

# With -P no module of the current folder is imported in the place of a library: a stranger may have put it there.
KDTOOL = (sys.executable, "-P", "-m", "kdtool")


@dataclass(frozen=True)
class Exit:
    """The exit code of a command, how long it ran, and what it said if it failed."""

    code: int
    seconds: float
    error: str | None = None
    began: bool = True
    """Whether it ran at all; if not, what an older command left at its place is still there."""


class Place(Protocol):
    """A place that runs commands."""

    at_once: int
    """How many commands run at the same time, about."""

    def has_room(self, running: int) -> bool:
        """Return whether another command can be submitted while so many are."""

    def submit(self, command: Command) -> Future[Any]:
        """Begin a command, or let it wait until there is room; an older result is removed when it begins."""

    def ended(self, command: Command, future: Future[Any]) -> Exit:
        """Return how a command ended; its files are in the study's directory."""

    def stop(self) -> None:
        """End what runs, and begin nothing more."""


@dataclass(frozen=True)
class Slot:
    """A job's share of this machine: how many threads it may use, and its GPU, as CUDA_VISIBLE_DEVICES names it."""

    threads: int
    gpu: str | None = None

    def environment(self, words: Sequence[str]) -> dict[str, str]:
        """Return the environment of a command that runs here; the user's own settings have precedence.

        A command that names its device (``--device cpu`` or ``cuda:1``) sees all of them. The processes of one with
        ``--processes N`` share its threads.
        """
        processes = option_value(words, "--processes") or "1"
        each = self.threads // max(1, int(processes) if processes.isdecimal() else 1)
        environment = {"OMP_NUM_THREADS": str(max(1, each)), **os.environ}
        if self.gpu is not None and (option_value(words, "--device") or "auto") in ("auto", "cuda"):
            environment["CUDA_VISIBLE_DEVICES"] = self.gpu
        return environment


def slots(jobs: int, cores: int, gpus: Sequence[str]) -> list[Slot]:
    """Return the shares of ``jobs`` jobs: the cores divided by their number, and a GPU for each in turn."""
    threads = max(1, cores // jobs)
    return [Slot(threads, gpus[number % len(gpus)] if gpus else None) for number in range(jobs)]


def visible_gpus() -> list[str]:
    """Return the GPUs that CUDA shows to this process, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        import torch

        return [str(number) for number in range(torch.cuda.device_count())]
    names = [name.strip() for name in named.split(",")]
    valid = [name not in ("", "-1") for name in names]
    return names[: valid.index(False) if False in valid else None]  # CUDA reads up to the first that is none


class Local:
    """This machine: ``jobs`` processes at a time."""

    def __init__(self, record: Record, jobs: int) -> None:
        """Divide the machine among the jobs; a single one has all of it."""
        self.record, self.at_once, self.stopped = record, jobs, False
        self.processes: list[subprocess.Popen[bytes]] = []
        self.pool = ThreadPoolExecutor(jobs)
        self.free: deque[Slot] | None = None
        if jobs > 1:
            cores, gpus = usable_cores(), visible_gpus()
            self.free = deque(slots(jobs, cores, gpus))
            say(f"--jobs {jobs}: {_shares(jobs, cores, gpus)}")

    def has_room(self, running: int) -> bool:
        """Return whether fewer than ``jobs`` commands run."""
        return running < self.at_once

    def submit(self, command: Command) -> Future[Exit]:
        """Begin a command; there is room for it."""
        start = self.record.start(command)
        self.record.begin(start)
        return self.pool.submit(self._run, command, start.resume)

    def ended(self, command: Command, future: Future[Exit]) -> Exit:
        """Return how a command ended."""
        return future.result()

    def stop(self) -> None:
        """End all processes."""
        self.stopped = True
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        self.pool.shutdown()

    def _run(self, command: Command, resume: bool) -> Exit:
        """Run one command to its end; its stderr is written to its log."""
        if self.stopped:
            return Exit(-1, 0.0)
        target = self.record.file(command)
        words = command.words(self.record.directory)
        exports = command.suffix == ONNX
        # What an export measures goes beside its file.
        printed = target.with_suffix(".json") if exports else Path(os.devnull)
        say(f"{command.name}: {'resumes' if resume else 'begins'}")
        started = time.monotonic()
        # At most ``jobs`` threads come here at the same time, so that there is a slot for each.
        slot = self.free.popleft() if self.free is not None else None
        try:
            with open(self.record.log(command), "wb") as log, open(printed, "wb") as output:
                process = subprocess.Popen(
                    [*KDTOOL, *words, "-o", str(target), *(["--json"] * exports), *(["--resume"] * resume)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=log,
                    env=slot.environment(words) if slot is not None else None,
                )
                self.processes.append(process)
                if self.stopped:
                    process.terminate()
                code = process.wait()
        finally:
            if slot is not None and self.free is not None:
                self.free.append(slot)
        seconds = time.monotonic() - started
        if not code:
            return Exit(code, seconds)
        return Exit(code, seconds, reason(code, self.record.log(command).read_text(encoding="utf-8", errors="replace")))


def _shares(jobs: int, cores: int, gpus: Sequence[str]) -> str:
    """Return in words what each job gets."""
    named = os.environ.get("OMP_NUM_THREADS")
    threads = f"OMP_NUM_THREADS={named}" if named else f"{max(1, cores // jobs)} of {cores} cores"
    gpu = ""
    if gpus:
        gpu = " and a GPU of its own" if jobs <= len(gpus) else f" and one of {len(gpus)} GPUs, which jobs share"
    return f"each has {threads}{gpu}"


def reason(code: int, said: str) -> str:
    """Return why a command failed, from its exit code and what it wrote to stderr; a negative code is a signal's."""
    if code < 0:
        memory = "; the memory may have run out" if code == -signal.SIGKILL else ""
        return f"killed by signal {-code} ({signal.strsignal(-code)}){memory}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if last.startswith("Error: "):
        return last.removeprefix("Error: ")
    return f"ended with exit code {code}" + (f": {last}" if last else "")
