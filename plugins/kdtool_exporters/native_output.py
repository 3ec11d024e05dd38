"""Converters that print on the streams of the process, past Python's ``sys.stdout`` and ``sys.stderr``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from kdtool_exporters.onnx_model import quiet


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Suppress what Python and native code print, warn and log; one thread of a process may do so at a time."""
    with contextlib.ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        kept = [(number, os.dup(number)) for number in (1, 2)]
        sink = os.open(os.devnull, os.O_WRONLY)

        def restore() -> None:
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)

        stack.callback(restore)
        for number, _ in kept:
            os.dup2(sink, number)
        os.close(sink)
        stack.enter_context(quiet())
        yield
