"""Tell the plugins that are always on what happened; one that fails hurts only itself."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from kdtool.plugins.entry_points import manager, reason_of
from kdtool.utils.progress import say

# How many seconds a listener may take.
LIMIT = 60.0


class _TooLongError(Exception):
    """A listener takes longer than `LIMIT`."""


def notify(hook: str, **facts: Any) -> None:
    """Call a hook of every plugin that has it.

    A plugin that raises, exits or takes too long is said to do so in one line and is not called again; the work goes
    on. What it prints goes to stderr, since stdout is for results.
    """
    pm = manager()
    for listener in getattr(pm.hook, hook).get_hookimpls():
        try:
            with contextlib.redirect_stdout(sys.stderr), _limited():
                listener.function(**{name: facts[name] for name in listener.argnames})
        except (Exception, SystemExit) as error:  # a plugin may fail in any way, and the work must go on
            reason = f"takes longer than {LIMIT:g} s" if isinstance(error, _TooLongError) else reason_of(error)
            say(f"warning: plugin {listener.plugin_name}: {hook}() failed: {reason}; it is not called again")
            with contextlib.suppress(AssertionError, ValueError):  # it may be unregistered already
                pm.unregister(listener.plugin)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise `_TooLongError` in the block after `LIMIT`, where the system can."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer") or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _stop(*_: object) -> NoReturn:
    raise _TooLongError
