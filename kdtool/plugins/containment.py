"""Code of plugins: how long it may take, where it prints, and that it does not end the process."""

from __future__ import annotations

import contextlib
import os
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


class ProcessExit(SystemExit):
    """Code called ``os._exit``."""

    def __str__(self) -> str:
        """Return what happened; it is shown behind the name of this class."""
        return f"os._exit({self.code!r}) was called"


class _Shared:
    """A change of the process that holds while blocks run, in any thread; the last one that ends takes it back."""

    def __init__(self) -> None:
        self.lock, self.blocks = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.blocks:
                self.begin()
            self.blocks += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.blocks -= 1
            if not self.blocks:
                self.end()

    def begin(self) -> None:
        """Make the change."""

    def end(self) -> None:
        """Take it back."""


class _Exits(_Shared):
    """``os._exit`` raises an error."""

    def begin(self) -> None:
        """Replace the function."""
        self.process, self.function = os.getpid(), os._exit
        os._exit = self._raise  # type: ignore[assignment]

    def end(self) -> None:
        """Put it back."""
        os._exit = self.function

    def _raise(self, code: int) -> NoReturn:
        if os.getpid() != self.process:
            self.function(code)  # a process that the code forked ends so
        raise ProcessExit(code)


class _Stdout(_Shared):
    """What is written to descriptor 1, by native code too, goes to stderr."""

    def begin(self) -> None:
        """Redirect it."""
        self.kept = -1
        _flush()
        with contextlib.suppress(OSError):  # one of the two may be closed
            self.kept = os.dup(1)
            os.dup2(2, 1)

    def end(self) -> None:
        """Put it back."""
        if self.kept >= 0:
            _flush()
            os.dup2(self.kept, 1)
            os.close(self.kept)


no_exit, _stdout = _Exits(), _Stdout()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Run code of others in the block: stdout is for results, so what it prints goes to stderr.

    ``os._exit`` raises `ProcessExit`.
    """
    with no_exit, _stdout, contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import a plugin in the block. What it prints goes to stderr, since stdout is for results.

    Raises:
        TimeoutError: the import takes too long.
        RuntimeError: it raised something that is no `Exception`.
    """
    try:
        with contained(), limited(IMPORT_LIMIT):
            yield
    except TooLong:
        raise TimeoutError(f"its import takes longer than {IMPORT_LIMIT:g} s") from None
    except (Exception, SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
