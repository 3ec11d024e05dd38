"""Check whether plugins can be imported, in processes of their own, so that a broken one does no harm."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from kdtool.errors import UsageError
from kdtool.plugins.entry_points import KINDS, TRACKERS, Plugin
from kdtool.plugins.registry import load
from kdtool.testing.names import check_names

LIMIT = 20.0
"""Seconds that the import of a plugin may take, beside that of torch."""

FIRST = "torch"
"""The module that is imported before the plugins: nearly all of them need it, and it takes most of the time."""

LIMIT_OF_FIRST = 180.0
"""Seconds that its import may take: on a loaded machine it is many times as long as usual."""

# The results are written to a separate descriptor, since a plugin may print to stdout.
CODE = """
import contextlib, importlib, json, os, sys
results = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
request = json.loads(sys.stdin.read())
sys.path[:] = request["path"]
from kdtool.cli.plugin_check import reason_for
from kdtool.plugins.entry_points import Plugin
if request["first"]:
    with contextlib.suppress(Exception):
        importlib.import_module(request["first"])
def tell(result):
    results.write(json.dumps(result) + "\\n")
    results.flush()
tell("begin")
for about in request["plugins"]:
    tell(reason_for(Plugin(**about)))
os._exit(0)
"""


def check(plugins: Sequence[Plugin]) -> dict[Plugin, str | None]:
    """Return for each plugin the reason why it is broken, or None.

    Built-in plugins import no library and plugins that are always on are loaded already, so both are loaded in this
    process. The others may be slow, crash or exit: those of a distribution are loaded in a process of their own.
    """
    local = [plugin for plugin in plugins if plugin.builtin or plugin.kind == "always on"]
    others: dict[str, list[Plugin]] = {}
    for plugin in plugins:
        if plugin not in local:
            others.setdefault(plugin.distribution, []).append(plugin)
    reasons = {plugin: reason_for(plugin) for plugin in local}
    with ThreadPoolExecutor(max_workers=max(1, os.cpu_count() or 1)) as pool:
        for of_distribution in pool.map(_load_isolated, others.values()):
            reasons |= of_distribution
    return {plugin: reasons[plugin] or _clash(plugin, plugins) for plugin in plugins}


def _clash(plugin: Plugin, plugins: Sequence[Plugin]) -> str | None:
    """Return an error if another plugin has the same kind and name, since neither can be used then; else None."""
    if plugin.kind == "always on":
        return None
    others = [other for other in plugins if (other.kind, other.name) == (plugin.kind, plugin.name) and other != plugin]
    return f"{others[0].distribution} has a method of the same name: uninstall one of the two" if others else None


def reason_for(plugin: Plugin) -> str | None:
    """Load a plugin in this process, and return the reason why it is broken, or None."""
    try:
        method = load(plugin)
        if plugin.kind in KINDS:
            check_names(method)
    except UsageError as error:
        return str(error)
    return None


def _load_isolated(plugins: Sequence[Plugin]) -> dict[Plugin, str | None]:
    """Return what `reason_for` returns, without loading a plugin in this process.

    One that ends its process, or takes too long, is tried again as the first of another process: so what others did to
    the process is not said of it.
    """
    reasons: dict[Plugin, str | None] = {}
    left = list(plugins)
    while left:
        results, end = _load_in_subprocess(left)
        reasons |= zip(left, results, strict=False)
        left = left[len(results) :]
        if left and not results:
            reasons[left.pop(0)] = end
    return reasons


def _load_in_subprocess(plugins: Sequence[Plugin]) -> tuple[list[str | None], str]:
    """Return the reasons for the first plugins, as many as a process could load, and how the next one ended it."""
    request = {
        "path": sys.path,
        "first": FIRST if any(plugin.kind != TRACKERS for plugin in plugins) else "",
        "plugins": [{name: getattr(plugin, name) for name in plugin.__dataclass_fields__} for plugin in plugins],
    }
    reasons: list[str | None] = []
    with tempfile.TemporaryFile("w+", errors="replace") as err:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(process.stdout, lines))
        reader.start()
        slow = f"the import of {FIRST}, which comes first, takes longer than {LIMIT_OF_FIRST:g} s"
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(json.dumps(request))
            if lines.get(timeout=LIMIT_OF_FIRST):
                slow = f"its import takes longer than {LIMIT:g} s"
                while len(reasons) < len(plugins) and (line := lines.get(timeout=LIMIT)):
                    reasons.append(json.loads(line))
        except queue.Empty:
            return reasons, slow
        finally:
            # Kill its child processes as well, which would keep its pipes open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
        err.seek(0)
        last = (err.read().strip().splitlines() or [""])[-1]
    return reasons, f"its import ended the process ({_ending(process.returncode)}){': ' if last else ''}{last}"


def _read(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Put the lines of a stream into a queue, and an empty one for its end."""
    for line in stream:
        lines.put(line)
    lines.put("")


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
