"""The process of the command line: its streams, the signals that end it, and its memory.

Whatever surrounds the process, it ends with the result and code 0, or with one line and another code.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, TextIO

from kdtool.errors import Error
from kdtool.utils.formatting import printable_lines

# These end a process by default, where the system has them; a program that runs longer has to stop in order.
SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

# How a shell tells that a signal ended a program.
BY_SIGNAL = 128

# With less than this, the libraries cannot be loaded.
LEAST_MEMORY = 1 << 30

# Rounds of a busy loop in which a thread of torch waits for the next piece of work, about 50 microseconds.
ROUNDS_OF_WAITING = "3000"

# Words in errors of libraries that could not get memory, threads or files.
EXHAUSTED = {
    "can't allocate memory": "memory",
    "cannot allocate memory": "memory",
    "failed to map segment": "memory",
    "not enough memory": "memory",
    "bad_alloc": "memory",
    "bad allocation": "memory",
    "out of memory": "memory",
    "unable to allocate": "memory",
    "can't start new thread": "threads or memory",
    "thread creation failed": "threads or memory",
    "too many open files": "open files",
}


def wait_briefly() -> None:
    """Let threads of OpenMP wait in a busy loop for a moment only, then sleep, unless the user's environment says how.

    torch reads the variables when it is imported. Threads that wait busily for long slow down other programs; threads
    that sleep at once wake up hundreds of times in each step, which costs a small network up to a third of its time
    (``benchmarks/waiting.py``). The number is read by GNU's OpenMP, which torch brings on Linux; others sleep at once.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT=ROUNDS_OF_WAITING)


class ReaderGone(Error):
    """Nobody reads stdout any more, as in ``kdtool ... | head``: no reason for a message, but the result is lost."""

    exit_code = BY_SIGNAL + getattr(signal, "SIGPIPE", 13)


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_code_of(interrupt: BaseException | None) -> int:
    """Return the exit code of an interruption: 128 and the number of the signal."""
    return BY_SIGNAL + (interrupt.number if isinstance(interrupt, Stopped) else int(signal.SIGINT))


@contextlib.contextmanager
def stopping_in_order() -> Iterator[None]:
    """Let signals that end the process raise `Stopped` where the program is, so that it ends in order.

    A signal that the caller has set to be ignored, as ``nohup`` does, stays ignored. Afterwards all handlers, also that
    of Ctrl-C, are those from before.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with contextlib.suppress(ValueError):  # only the main thread can set them
        for number, handler in before.items():
            if handler is signal.SIG_DFL:  # that of Ctrl-C raises a KeyboardInterrupt already
                signal.signal(number, _stop)
    try:
        yield
    finally:
        _set(before)


def ignore_signals() -> None:
    """Ignore signals that end the process from here on: it is ending, and has yet to say why."""
    _set(dict.fromkeys(SIGNALS, signal.SIG_IGN))


def _set(handlers: Mapping[signal.Signals, Any]) -> None:
    """Set the handlers of signals, where this is the main thread; None is one that Python cannot set again."""
    with contextlib.suppress(ValueError):
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not None:
                signal.signal(number, handler)


def _stop(number: int, _: object) -> NoReturn:
    raise Stopped(number)


def check_streams() -> None:
    """Make the standard streams usable, whatever they are.

    Messages that nobody can read must not stop the work. A closed stream becomes ``/dev/null``: the next file that is
    opened would take its number, and get what libraries print. Characters that stdout cannot encode become ``?``, and
    the bytes of names that are no text stay as they are.

    Raises:
        Error: stdout is closed, so that no result can be printed.
    """
    closed = sys.stdout is None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    codecs.register_error("kdtool", _encoded)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="kdtool")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _Tolerant(sys.stderr)  # type: ignore[assignment]
    if closed:
        raise Error("stdout is closed, so no result can be printed; redirect it to a file or to /dev/null")


def _encoded(error: UnicodeError) -> tuple[bytes, int]:
    """Return what takes the place of characters that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    # Python keeps the bytes of a file name that are no UTF-8 as these characters.
    bytes_ = [ord(char) - 0xDC00 if "\udc80" <= char <= "\udcff" else ord("?") for char in text]
    return bytes(bytes_), error.end


class _Tolerant:
    """stderr, whose failures are ignored: a full disk or a terminal that is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def write(self, text: str) -> int:
        """Write text if possible."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write lines if possible."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush if possible."""
        with contextlib.suppress(OSError):
            self._stream.flush()


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Flush stdout after the block.

    Raises:
        Error: what was printed in the block cannot be written, so that nobody has it.
        ReaderGone: stdout is a pipe that was closed.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if not _by_printing(error):
            raise
        # Python would try once more when the process ends, and fail with a traceback.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, sys.stdout.fileno())
            os.close(descriptor)
        if isinstance(error, BrokenPipeError):
            raise ReaderGone from error
        raise Error(f"stdout: the result cannot be written: {error.strerror or error}") from error


def _by_printing(error: OSError) -> bool:
    """Return whether an error came from a stream, and not from a file that is read or written."""
    frames = traceback.walk_tb(error.__traceback__)
    last = [frame.f_globals.get("__name__", "") for frame, _ in frames][-1]
    return error.filename is None and last in (__name__, "click.utils")


def print_result(text: str) -> None:
    """Print a result on stdout, without control characters.

    Raises:
        Error: it cannot be written.
    """
    with printing():
        print(printable_lines(text, None))


def check_memory() -> None:
    """Check that the process may take enough memory to begin with; some libraries end it if they get none.

    Raises:
        Error: it may not.
    """
    try:
        import resource
    except ImportError:  # not on this system
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= limit < LEAST_MEMORY:
        raise Error(
            f"there is not enough memory: ulimit -v allows {limit >> 20} MiB, and kdtool needs more than "
            f"{LEAST_MEMORY >> 20} MiB"
        )


def check_folder() -> None:
    """Check that there is a current folder; some libraries end the process where it was removed.

    Raises:
        Error: there is none.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise Error("the current folder was removed; go to another one") from error


def exhausted(error: BaseException) -> str | None:
    """Return what the system could not give, if that is the reason of an error, else None."""
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(link, MemoryError) for link in links):
        return "memory"
    text = " ".join(str(link) for link in links).lower()
    return next((what for words, what in EXHAUSTED.items() if words in text), None)
