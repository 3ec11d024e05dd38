"""Find plugins by their entry points. Only those in use are imported, and a broken one does not disturb the others."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

from kdtool.errors import UsageError
from kdtool.plugins import hookspecs
from kdtool.plugins.containment import importing
from kdtool.utils.formatting import printable

KINDS = ("teachers", "refiners", "distillers", "pruners", "exporters", "datasets")

SINGULAR = {
    "teachers": "teacher source",
    "refiners": "refiner",
    "distillers": "distiller",
    "pruners": "pruner",
    "exporters": "exporter",
    "datasets": "data set",
}

TRACKERS = "trackers"
"""The kind of the plugins that show a training in another program; their group is ``kdtool.trackers``."""

ALWAYS_ON = "kdtool"
"""The group of the entry points of plugins that listen to every command."""


LONGEST_NAME = 60

# Letters, digits and marks between them; + and , join names, - and . may begin an option or a path.
NAME = re.compile(rf"[A-Za-z0-9](?:[\w.:-]{{0,{LONGEST_NAME - 2}}}[A-Za-z0-9])?", re.ASCII)


class BrokenPlugin(UsageError):
    """A plugin is installed but cannot be used."""


@dataclass(frozen=True)
class Plugin:
    """An entry point, as the metadata of its distribution describe it."""

    kind: str
    name: str
    module: str
    distribution: str
    version: str
    attribute: str = ""
    """The class that the entry point names; empty if it names a module."""

    def __str__(self) -> str:
        """Return the start of an error message about the plugin."""
        return f"plugin {self.shown!r} of {self.distribution} {self.version} is broken"

    @property
    def shown(self) -> str:
        """Its name, without control characters."""
        return printable(self.name, LONGEST_NAME)

    @property
    def has_good_name(self) -> bool:
        """Whether a user can type its name, and the grammar of the command line does not read it as something else."""
        return self.kind == "always on" or NAME.fullmatch(self.name) is not None

    @property
    def builtin(self) -> bool:
        """Whether the plugin is part of kdtool."""
        return self.distribution == "kdtool"


@functools.cache
def manager() -> pluggy.PluginManager:
    """Return the plugin manager of the process; plugins are registered with it by `register`."""
    pm = pluggy.PluginManager("kdtool")
    pm.add_hookspecs(hookspecs)
    return pm


@functools.cache
def installed() -> tuple[Plugin, ...]:
    """Return all installed plugins, sorted by kind and name, without importing them."""
    groups = {f"kdtool.{kind}": kind for kind in (*KINDS, TRACKERS)} | {ALWAYS_ON: "always on"}
    plugins: dict[tuple[str, str, str], Plugin] = {}
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        points = [point for point in _entry_points(distribution) if point.group in groups]
        if not points:
            continue
        metadata = distribution.metadata
        present = {key: metadata[key] for key in ("Name", "Version") if key in metadata}
        owner, version = (printable(present.get(key, "unknown"), LONGEST_NAME) for key in ("Name", "Version"))
        # The first distribution on the path wins, as it does for an import.
        if owner in seen:
            continue
        seen.add(owner)
        for point in points:
            module, _, attribute = point.value.partition(":")
            plugin = Plugin(groups[point.group], point.name, module.strip(), owner, version, attribute.strip())
            plugins.setdefault((plugin.kind, plugin.name, plugin.module), plugin)
    return tuple(sorted(plugins.values(), key=lambda plugin: (plugin.kind, plugin.name)))


def _entry_points(distribution: importlib.metadata.Distribution) -> Sequence[importlib.metadata.EntryPoint]:
    try:
        return distribution.entry_points
    except Exception:  # damaged metadata of another package must not stop kdtool
        return ()


def names(kind: str) -> list[str]:
    """Return the names of all methods of a kind, without importing them."""
    return sorted({plugin.name for plugin in installed() if plugin.kind == kind and plugin.has_good_name})


@functools.cache
def register(module: str) -> Any:
    """Import the module of a plugin that is always on, register its hooks and return it.

    Raises:
        BrokenPlugin: the module fails to import, or has a hook that kdtool does not know.
    """
    pm = manager()
    try:
        with importing():
            loaded = importlib.import_module(module)
        pm.register(loaded, name=module)
        pm.check_pending()
    except (Exception, SystemExit) as error:  # a plugin may fail in any way, and the tool must go on
        if pm.has_plugin(module):
            pm.unregister(name=module)
        raise BrokenPlugin(f"{module}: {reason_of(error)}") from error
    return loaded


def always_on() -> list[BrokenPlugin]:
    """Register the plugins that are always on, and return the errors of those that are broken."""
    broken = []
    for plugin in installed():
        if plugin.kind == "always on":
            try:
                register(plugin.module)
            except BrokenPlugin as error:
                broken.append(BrokenPlugin(f"{plugin}: {error}"))
    return broken


def reason_of(error: BaseException) -> str:
    """Return the type and the message of an error as one line."""
    kind = "" if isinstance(error, pluggy.PluginValidationError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())
