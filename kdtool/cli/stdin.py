"""Checkpoint paths from a pipe."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import click

from kdtool.errors import Error, UsageError

PATIENCE = 0.5
"""Seconds before it is said that the pipe is waited for."""


def piped_paths(otherwise: str) -> tuple[Path, ...]:
    """Read paths from stdin, one a line, until it closes.

    Raises:
        UsageError: stdin is a terminal, closed or ``/dev/null``; the message is ``otherwise``.
        Error: the pipe closed and nothing had come.
    """
    if not _is_pipe():
        raise UsageError(otherwise)
    waiting = threading.Timer(PATIENCE, click.echo, ["waiting for a path on stdin"], {"err": True})
    waiting.daemon = True
    waiting.start()
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise Error("stdin: is no text; pipe the path of a checkpoint, not the file itself") from error
    finally:
        waiting.cancel()
    paths = tuple(Path(line.strip()) for line in text.splitlines() if line.strip())
    if not paths:
        raise Error("the pipe closed without a path: the command before it failed, or printed none")
    return paths


def _is_pipe() -> bool:
    """Whether stdin is a pipe, a socket or a file; a terminal or ``/dev/null`` gives no path."""
    if sys.stdin is None or sys.stdin.closed:
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        # No file of the system's: a stream in memory.
        return True
    return not stat.S_ISCHR(mode) and not stat.S_ISDIR(mode)
