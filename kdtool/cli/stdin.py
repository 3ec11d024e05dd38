"""Read checkpoint paths from a pipe."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import click

from kdtool.cli import launcher
from kdtool.errors import Error, UsageError
from kdtool.utils.processes import launched

NOTICE_AFTER = 0.5
"""Seconds of waiting for the pipe after which the user is told so."""


def piped_paths(error_message: str) -> tuple[Path, ...]:
    """Return the paths on stdin, one per line; read until stdin is closed.

    Raises:
        UsageError: stdin is a terminal, closed or ``/dev/null``; the message is ``error_message``. Or a launcher gave
            the same stdin to several processes.
        Error: the pipe was closed without a path, or its content is not text.
    """
    if paths := launcher.piped():
        return paths
    if not _is_pipe():
        raise UsageError(error_message)
    if launched() > 1:
        raise UsageError(f"no checkpoint given; name it, since {launched()} processes cannot read one pipe")
    notice = threading.Timer(NOTICE_AFTER, click.echo, ["waiting for a path on stdin"], {"err": True})
    notice.daemon = True
    notice.start()
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError:
        text = "\0"
    finally:
        notice.cancel()
    if "\0" in text:  # in some locales any bytes are text
        raise Error("stdin: is not text; pipe the path of a checkpoint, not the file itself")
    paths = tuple(Path(line.strip()) for line in text.splitlines() if line.strip())
    if not paths:
        raise Error("the pipe was closed without a path: the command before it failed or printed none")
    return paths


def _is_pipe() -> bool:
    """Return whether stdin is a pipe, a socket or a file, not a terminal or ``/dev/null``."""
    if sys.stdin is None or sys.stdin.closed:
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        # Not a file of the operating system but a stream in memory.
        return True
    return not stat.S_ISCHR(mode) and not stat.S_ISDIR(mode)
