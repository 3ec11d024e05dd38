"""Tell the plugins that are always on what happened; one that fails hurts only itself."""

from __future__ import annotations

import contextlib
from typing import Any

from kdtool.plugins.containment import TooLong, contained, limited
from kdtool.plugins.entry_points import manager, reason_of
from kdtool.utils.progress import say

# How many seconds a listener may take.
LIMIT = 60.0


def notify(hook: str, **facts: Any) -> None:
    """Call a hook of every plugin that has it.

    A plugin that raises, exits or takes too long is said to do so in one line and is not called again; the work goes
    on. What it prints goes to stderr, since stdout is for results.
    """
    pm = manager()
    for listener in getattr(pm.hook, hook).get_hookimpls():
        try:
            with contained(), limited(LIMIT):
                listener.function(**{name: facts[name] for name in listener.argnames})
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may fail in any way, and the work must go on
            reason = f"takes longer than {LIMIT:g} s" if isinstance(error, TooLong) else reason_of(error)
            say(f"warning: plugin {listener.plugin_name}: {hook}() failed: {reason}; it is not called again")
            with contextlib.suppress(AssertionError, ValueError):  # it may be unregistered already
                pm.unregister(listener.plugin)
