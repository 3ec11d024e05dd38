"""Find plugins by entry points, import only those in use, keep a broken one to itself."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

from kdtool.errors import UsageError
from kdtool.plugins import hookspecs

KINDS = ("teachers", "refiners", "distillers", "pruners", "exporters", "datasets")

SINGULAR = {
    "teachers": "teacher source",
    "refiners": "refiner",
    "distillers": "distiller",
    "pruners": "pruner",
    "exporters": "exporter",
    "datasets": "data set",
}

ALWAYS_ON = "kdtool"


class BrokenPlugin(UsageError):
    """A plugin that is installed and cannot be used."""


@dataclass(frozen=True)
class Plugin:
    """One entry point, known from its distribution's metadata alone."""

    kind: str
    name: str
    module: str
    distribution: str
    version: str
    attribute: str = ""
    """The class that the entry point names; empty where it names a module."""

    def __str__(self) -> str:
        """Return how an error names the plugin."""
        return f"plugin {self.name!r} of {self.distribution} {self.version} is broken"

    @property
    def builtin(self) -> bool:
        """Whether it came with kdtool itself."""
        return self.distribution == "kdtool"


@functools.cache
def manager() -> pluggy.PluginManager:
    """Return the one plugin manager, with no plugin registered yet."""
    pm = pluggy.PluginManager("kdtool")
    pm.add_hookspecs(hookspecs)
    return pm


@functools.cache
def installed() -> tuple[Plugin, ...]:
    """Return every plugin that is installed, by kind and name, importing none of them."""
    groups = {f"kdtool.{kind}": kind for kind in KINDS} | {ALWAYS_ON: "always on"}
    found: dict[tuple[str, str, str], Plugin] = {}
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        points = [point for point in _entry_points(distribution) if point.group in groups]
        if not points:
            continue
        about = distribution.metadata
        known = {key: about[key] for key in ("Name", "Version") if key in about}
        owner, version = known.get("Name", "unknown"), known.get("Version", "unknown")
        # The first on the path wins, as it does for an import.
        if owner in seen:
            continue
        seen.add(owner)
        for point in points:
            module, _, attribute = point.value.partition(":")
            plugin = Plugin(groups[point.group], point.name, module.strip(), owner, version, attribute.strip())
            found.setdefault((plugin.kind, plugin.name, plugin.module), plugin)
    return tuple(sorted(found.values(), key=lambda plugin: (plugin.kind, plugin.name)))


def _entry_points(distribution: importlib.metadata.Distribution) -> Sequence[importlib.metadata.EntryPoint]:
    try:
        return distribution.entry_points
    except Exception:  # some package's damaged metadata says nothing about plugins
        return ()


def names(kind: str) -> list[str]:
    """Return the names of all methods of a kind, importing none of them."""
    return sorted({plugin.name for plugin in installed() if plugin.kind == kind})


@functools.cache
def register(module: str) -> Any:
    """Import a module, register its hooks and return it: a plugin that is always on.

    Raises:
        BrokenPlugin: the module fails to import, or has a hook that kdtool does not know.
    """
    pm = manager()
    try:
        loaded = importlib.import_module(module)
        pm.register(loaded, name=module)
        pm.check_pending()
    except (Exception, SystemExit) as error:  # a plugin may fail in any way; the tool goes on
        if pm.has_plugin(module):
            pm.unregister(name=module)
        raise BrokenPlugin(f"{module}: {reason_of(error)}") from error
    return loaded


def always_on() -> list[BrokenPlugin]:
    """Register the plugins that are always on; return what went wrong with the others."""
    broken = []
    for plugin in installed():
        if plugin.kind not in KINDS:
            try:
                register(plugin.module)
            except BrokenPlugin as error:
                broken.append(BrokenPlugin(f"{plugin}: {error}"))
    return broken


def reason_of(error: BaseException) -> str:
    """Return what went wrong as one line."""
    kind = "" if isinstance(error, pluggy.PluginValidationError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())
