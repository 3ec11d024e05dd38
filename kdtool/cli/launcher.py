"""The command line in one of several processes: the first one speaks, and one of them names an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

from kdtool.errors import UsageError
from kdtool.utils.processes import decided, first_to_fail, is_first, is_lost_process, launched, separate, together

ALONE = {
    "run": "starts processes of its own",
    "demo": "is made for one process",
    "compress": "measures time, which several processes share",
}
"""Commands for which there is one process, and why."""

LOST = "another process of this training is gone: it was killed, or its machine does not answer"


def listen() -> None:
    """Silence this process unless it is the first one, or the only one."""
    if launched() > 1:
        # torch warns of what it looks for in vain; it reads this when it is imported.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if not is_first():
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def check(steps: Iterable[str]) -> None:
    """Check that several processes can work on these steps.

    Raises:
        UsageError: they cannot.
    """
    for name in steps:
        if launched() > 1 and name in ALONE:
            raise UsageError(f"{name}: {ALONE[name]}; start it without torchrun or another launcher")


def by_first(run: Callable[[], str | None], *, last: bool) -> str | None:
    """Run a step that trains nothing in the first process; return its text there, and None in the others.

    If it is not the ``last`` step, the others wait for it.
    """
    if launched() < 2:
        return run()
    if last:
        return run() if is_first() else None
    with together():
        text = decided(run)
    return text if is_first() else None


def is_lost(error: BaseException) -> bool:
    """Return whether an error says that another of several processes is gone."""
    return is_lost_process(error)


def reports() -> bool:
    """Return whether this process prints its error: of several, the first that fails does."""
    if not first_to_fail():
        return False
    if launched() > 1 and sys.__stderr__ is not None:
        sys.stderr = sys.__stderr__
    return True


def leave(code: int) -> None:
    """End this process at once if it is one of several and has failed; else leave the others in order."""
    if launched() < 2:
        return
    if code:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Threads of a library may still wait for the processes that are gone.
        os._exit(code)
    separate()
