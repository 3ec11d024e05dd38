"""Where progress is shown: bars in a terminal, one line that changes in a notebook, plain lines in a file.

A log file, ``nohup``, a CI job and a batch job of a cluster have no terminal. They get a line when an epoch ends, at
most one in `LINE_SECONDS`, so that a training of thousands of short epochs does not fill the disk, and a line after
`SILENT_SECONDS` without one, so that a long epoch does not look like a process that hangs.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from kdtool.utils import meters
from kdtool.utils.meters import Meter, Screen
from kdtool.utils.verbosity import is_quiet, is_verbose

LINE_SECONDS = 60.0

SILENT_SECONDS = 115.0


class Lines(Screen):
    """Plain lines, for what is no terminal."""

    def __enter__(self) -> Screen:
        self.spoke, self.over = time.monotonic(), threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.over.set()
        self.thread.join()

    def epoch_ended(self, line: str) -> None:
        """Print a line about an epoch, unless another one was printed just before."""
        if is_verbose() or time.monotonic() - self.spoke >= LINE_SECONDS:
            self._print(line + self._left_shown())

    def clear(self) -> None:
        """Make room for a line."""
        self.spoke = time.monotonic()

    def _watch(self) -> None:
        while not self.over.wait(max(0.01, self.spoke + SILENT_SECONDS - time.monotonic())):
            if time.monotonic() - self.spoke >= SILENT_SECONDS:
                self._print(self.status())

    def _print(self, line: str) -> None:
        self.spoke = time.monotonic()
        if line:
            print(line, file=sys.stderr, flush=True)


class InPlace(Screen):
    """One line that changes, for a notebook."""

    def __enter__(self) -> Screen:
        self.refreshed, self.width = 0.0, 0
        return self

    def refresh(self) -> None:
        """Show how far all is, if enough time has passed."""
        if time.monotonic() - self.refreshed >= 2 * meters.REFRESH_SECONDS:
            self._write(self.status())

    def clear(self) -> None:
        """Make room for a line."""
        if self.width:
            self._write("")

    def _write(self, text: str) -> None:
        self.refreshed = time.monotonic()
        print("\r" + text.ljust(self.width), end="" if text else "\r", file=sys.stderr, flush=True)
        self.width = len(text)


def opened(whole: Meter | None, phases: Sequence[tuple[str, float]]) -> Screen:
    """Return the screen that suits stderr."""
    if is_quiet():
        return Screen(whole, phases)
    if in_notebook():
        return InPlace(whole, phases)
    # Where latency is measured on another device, rich may be missing.
    if in_terminal() and os.environ.get("TERM") != "dumb" and importlib.util.find_spec("rich") is not None:
        from kdtool.utils.bars import Bars

        return Bars(whole, phases)
    return Lines(whole, phases)


def in_terminal() -> bool:
    """Return whether stderr is a terminal; a program may have put anything in its place, or nothing."""
    return bool(getattr(sys.stderr, "isatty", bool)())


def in_notebook() -> bool:
    """Return whether a notebook shows what is printed."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
