"""Whether plugins work, found out where a bad one hurts nobody."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from kdtool.errors import UsageError
from kdtool.plugins.entry_points import Plugin
from kdtool.plugins.registry import load

LIMIT = 20.0
"""Seconds that a plugin may take to import."""

# The verdict goes out on a descriptor of its own, since a plugin may print.
CODE = """
import json, os, sys
verdict = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
about = json.loads(sys.stdin.read())
sys.path[:] = about["path"]
from kdtool.plugins.entry_points import BrokenPlugin, Plugin
from kdtool.plugins.registry import load
try:
    load(Plugin(**about["plugin"]))
    reason = None
except BrokenPlugin as error:
    reason = str(error)
verdict.write(json.dumps({"reason": reason}))
verdict.flush()
os._exit(0)
"""


def check(plugins: Sequence[Plugin]) -> dict[Plugin, str | None]:
    """Return for each plugin why it is broken, or None.

    A built-in one, which imports no library, is loaded here, as is one that is always on and thus loaded already. Any
    other is loaded in a process of its own: it may be slow, crash, or leave.
    """
    here = [plugin for plugin in plugins if plugin.builtin or plugin.kind == "always on"]
    away = [plugin for plugin in plugins if plugin not in here]
    reasons = {plugin: _load(plugin) for plugin in here}
    with ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1)) as pool:
        reasons |= dict(zip(away, pool.map(_load_away, away), strict=True))
    return {plugin: reasons[plugin] or _clash(plugin, plugins) for plugin in plugins}


def _clash(plugin: Plugin, plugins: Sequence[Plugin]) -> str | None:
    """Return who else has a method's name; neither can be used then."""
    if plugin.kind == "always on":
        return None
    others = [one for one in plugins if (one.kind, one.name) == (plugin.kind, plugin.name) and one != plugin]
    return f"{others[0].distribution} has one of that name too: uninstall one of them" if others else None


def _load(plugin: Plugin) -> str | None:
    try:
        load(plugin)
    except UsageError as error:
        return str(error)
    return None


def _load_away(plugin: Plugin) -> str | None:
    about = {"path": sys.path, "plugin": {name: getattr(plugin, name) for name in plugin.__dataclass_fields__}}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(json.dumps(about), timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"takes longer than {LIMIT:g} s to import"
    finally:
        # Also what it may have started, which would hold its pipes open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if out:
        reason: str | None = json.loads(out)["reason"]
        return reason
    last = (err.strip().splitlines() or [""])[-1]
    return f"importing it ended the process ({_ending(process.returncode)}){': ' if last else ''}{last}"


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
