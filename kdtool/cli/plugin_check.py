"""Check whether plugins can be imported, in processes of their own, so that a broken one does no harm."""

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
"""Seconds that the import of a plugin may take."""

# The result is written to a separate descriptor, since a plugin may print to stdout.
CODE = """
import json, os, sys
result = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
request = json.loads(sys.stdin.read())
sys.path[:] = request["path"]
from kdtool.plugins.entry_points import BrokenPlugin, Plugin
from kdtool.plugins.registry import load
try:
    load(Plugin(**request["plugin"]))
    reason = None
except BrokenPlugin as error:
    reason = str(error)
result.write(json.dumps({"reason": reason}))
result.flush()
os._exit(0)
"""


def check(plugins: Sequence[Plugin]) -> dict[Plugin, str | None]:
    """Return for each plugin the reason why it is broken, or None.

    Built-in plugins import no library and plugins that are always on are loaded already, so both are loaded in this
    process. Every other plugin is loaded in a process of its own, since it may be slow, crash or exit.
    """
    local = [plugin for plugin in plugins if plugin.builtin or plugin.kind == "always on"]
    isolated = [plugin for plugin in plugins if plugin not in local]
    reasons = {plugin: _load(plugin) for plugin in local}
    with ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1)) as pool:
        reasons |= dict(zip(isolated, pool.map(_load_in_subprocess, isolated), strict=True))
    return {plugin: reasons[plugin] or _clash(plugin, plugins) for plugin in plugins}


def _clash(plugin: Plugin, plugins: Sequence[Plugin]) -> str | None:
    """Return an error if another plugin has the same kind and name, since neither can be used then; else None."""
    if plugin.kind == "always on":
        return None
    others = [other for other in plugins if (other.kind, other.name) == (plugin.kind, plugin.name) and other != plugin]
    return f"{others[0].distribution} has a method of the same name: uninstall one of the two" if others else None


def _load(plugin: Plugin) -> str | None:
    try:
        load(plugin)
    except UsageError as error:
        return str(error)
    return None


def _load_in_subprocess(plugin: Plugin) -> str | None:
    request = {"path": sys.path, "plugin": {name: getattr(plugin, name) for name in plugin.__dataclass_fields__}}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", CODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(json.dumps(request), timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"its import takes longer than {LIMIT:g} s"
    finally:
        # Kill its child processes as well, which would keep its pipes open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if out:
        reason: str | None = json.loads(out)["reason"]
        return reason
    last = (err.strip().splitlines() or [""])[-1]
    return f"its import ended the process ({_ending(process.returncode)}){': ' if last else ''}{last}"


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
