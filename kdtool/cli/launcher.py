"""The command line in one of several processes: the first one speaks, and one of them names an error."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from kdtool.errors import Error, UsageError
from kdtool.training.foresight import trial
from kdtool.utils.files import read_text, write_text
from kdtool.utils.processes import decided, first_to_fail, is_first, is_lost_process, launched, separate, together
from kdtool.utils.strict_json import dumps

ALONE = {
    "run": "starts processes of its own",
    "demo": "is made for one process",
}
"""Commands for which there is one process, and why."""

LOST = "another process of this training is gone: it was killed, or its machine does not answer"

PLACE = "KDTOOL_LAUNCHER"
"""The variable with the directory that processes share with the one that started them by ``--processes``."""

ERROR, PIPED, REPEATS = "-error.json", "piped", "repeats"
"""Its files: the error of each process behind its number, the paths from stdin, and whether steps are repeated."""


def started_here() -> bool:
    """Return whether ``--processes`` started this process."""
    return PLACE in os.environ


def repeats() -> bool:
    """Return whether the steps that train nothing may have been done by a trial, and are done again."""
    return started_here() and (Path(os.environ[PLACE]) / REPEATS).exists()


def piped() -> tuple[Path, ...]:
    """Return the paths that the process that started this one has read from stdin."""
    try:
        return tuple(map(Path, read_text(Path(os.environ[PLACE]) / PIPED).splitlines()))
    except (KeyError, FileNotFoundError):
        return ()


def listen() -> None:
    """Silence this process unless it is the first one, or the only one."""
    if launched() > 1:
        # torch warns of what it looks for in vain; it reads this when it is imported.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        # The first one that fails ends the others wherever they are; where nothing can be raised, such as in the end of
        # the workers that read images, Python would print a trace.
        sys.unraisablehook = lambda unraisable: None
    if not is_first():
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if started_here():
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        if trial.Trial.pending() is not None:
            trial.hold()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def check(steps: Iterable[str]) -> None:
    """Check that several processes can work on these steps.

    Raises:
        UsageError: they cannot.
    """
    for name in steps:
        if launched() > 1 and name in ALONE:
            raise UsageError(f"{name}: {ALONE[name]}; start it without torchrun or another launcher")


def by_first(run: Callable[[], str | None], device: str | None) -> str | None:
    """Run a step that trains nothing in the first process; return its text there, and None in the others.

    The others wait for it if a later step trains, on ``device``; None if none does.
    """
    if launched() < 2:
        return run()
    if device is None:
        return run() if is_first() else None
    with together(device):
        text = decided(run)
    return text if is_first() else None


def is_lost(error: BaseException) -> bool:
    """Return whether an error says that another of several processes is gone."""
    return is_lost_process(error)


def reports() -> bool:
    """Return whether this process says its error: of several, the first that fails does."""
    if not started_here() and not first_to_fail():
        return False
    if launched() > 1 and sys.__stderr__ is not None:
        sys.stderr = sys.__stderr__
    return True


def handed_on(line: str, code: int) -> bool:
    """Leave an error and its exit code to the process that started this one by ``--processes``, if one did."""
    if not started_here():
        return False
    number = os.environ.get("RANK", "0")
    try:
        path = Path(os.environ[PLACE]) / f"{number}{ERROR}"
        write_text(path, dumps({"line": line, "code": code, "at": time.time()}))
    except Error:  # a full disk
        return False
    return True


def leave(code: int) -> None:
    """End this process at once if it is one of several and has failed; else leave the others in order."""
    if launched() < 2:
        return
    trial.release()
    if code:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Threads of a library may still wait for the processes that are gone.
        os._exit(code)
    separate()
