"""Studies whose commands are forks of this process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.safety.children import run_here


class Forked:
    """Stands for `subprocess.Popen` of a study's command: a fork of this process, which has its imports."""

    def __init__(self, words: Sequence[str], *, stdin: int, stdout: Any, stderr: Any, env: Any = None) -> None:
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                from kdtool.study.places import KDTOOL

                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.dup2(stdout.fileno(), 1)
                os.dup2(stderr.fileno(), 2)
                for number, name in ((1, "stdout"), (2, "stderr")):
                    setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
                os.environ.update(env or {})
                code = run_here(words[len(KDTOOL) :])
            finally:
                os._exit(code)

    def wait(self) -> int:
        """Wait until it ends, and return its exit code."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.code is None:
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                self.code = os.waitstatus_to_exitcode(status) if ended else None
        return self.code

    def terminate(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGTERM)


@contextlib.contextmanager
def forking_studies() -> Any:
    """Let studies fork their commands instead of beginning programs, which import torch for seconds each."""
    from kdtool.study import places

    class Module:
        DEVNULL, Popen = subprocess.DEVNULL, Forked

    before, places.subprocess = places.subprocess, Module  # type: ignore[attr-defined,assignment]
    try:
        yield
    finally:
        places.subprocess = before  # type: ignore[attr-defined]
