"""Code of plugins: how long it may take, and where it prints."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

IMPORT_LIMIT = 120.0
"""Seconds that the import of a plugin may take; a large library from a slow disk takes half a minute."""


class TooLong(BaseException):
    """Code of a plugin takes too long. It is no `Exception`, which the code may ignore."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in the block after so many seconds, where the system can; again each second if it is ignored."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer") or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _stop(*_: object) -> NoReturn:
    raise TooLong


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import a plugin in the block. What it prints goes to stderr, since stdout is for results.

    Raises:
        TimeoutError: the import takes too long.
        RuntimeError: it raised something that is no `Exception`.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), limited(IMPORT_LIMIT):
            yield
    except TooLong:
        raise TimeoutError(f"its import takes longer than {IMPORT_LIMIT:g} s") from None
    except (Exception, SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
