"""Find plugins by entry points, import only those in use, keep a broken one to itself."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from kdtool import hookspecs
from kdtool.errors import UsageError, nearest

if TYPE_CHECKING:
    from kdtool.methods import Method

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
            plugin = Plugin(groups[point.group], point.name, point.value, owner, version)
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
    """Import a plugin's module and register its hooks; return the module.

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
        raise BrokenPlugin(f"{module}: {_reason(error)}") from error
    return loaded


def _reason(error: BaseException) -> str:
    """Return what went wrong as one line."""
    kind = "" if isinstance(error, pluggy.PluginValidationError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())


def method_class(kind: str, name: str) -> type[Any]:
    """Import and return one method, a subclass of the kind's base in `kdtool.methods`.

    Raises:
        UsageError: no method of that name is installed (the nearest names are told).
        BrokenPlugin: its plugin cannot be used.
    """
    if kind == "distillers" and (":" in name or "+" in name):
        from kdtool.sums import sum_class

        return sum_class(name)
    found = [plugin for plugin in installed() if (plugin.kind, plugin.name) == (kind, name)]
    if not found:
        known = names(kind)
        hint = nearest(name, known) or f"; there are {', '.join(known)}"
        raise UsageError(f"no {SINGULAR[kind]} is called {name!r}{hint}")
    if len({plugin.module for plugin in found}) > 1:
        owners = " and ".join(plugin.distribution for plugin in found)
        raise BrokenPlugin(f"{SINGULAR[kind]} {name!r} comes from {owners}: uninstall one of them")
    cls: type[Any] = load(found[0])
    return cls


def load(plugin: Plugin) -> Any:
    """Import one plugin and return its method's class (the module, for one that is always on).

    Raises:
        BrokenPlugin: it fails to import, misspells a hook or brings no method of its name.
    """
    try:
        module = register(plugin.module)
        if plugin.kind not in KINDS:
            return module
        hook = getattr(module, plugin.kind, None)
        if hook is None:
            raise BrokenPlugin(f"{plugin.module}: has no hook {plugin.kind}()")
        return _brought(plugin, hook)
    except BrokenPlugin as error:
        where = f"{plugin.distribution} {plugin.version}"
        raise BrokenPlugin(f"plugin {plugin.name!r} of {where} is broken: {error}") from error


def always_on() -> list[BrokenPlugin]:
    """Register the plugins that are always on; return what went wrong with the others."""
    broken = []
    for plugin in installed():
        if plugin.kind not in KINDS:
            try:
                load(plugin)
            except BrokenPlugin as error:
                broken.append(error)
    return broken


def _brought(plugin: Plugin, hook: Callable[[], Iterable[type[Method]]]) -> type[Method]:
    """Return the class of the plugin's name among those that its hook returns."""
    try:
        classes = {cls.name: cls for cls in hook()}
        for cls in classes.values():
            cls.describe()
    except (Exception, SystemExit) as error:  # the hook and the class are the plugin's code as well
        raise BrokenPlugin(f"{plugin.module}: {plugin.kind}(): {_reason(error)}") from error
    if plugin.name not in classes:
        brought = ", ".join(classes) or "nothing"
        raise BrokenPlugin(f"{plugin.module}: brings {brought}, not {plugin.name!r}")
    cls = classes[plugin.name]
    if cls.kind != plugin.kind:
        raise BrokenPlugin(f"{plugin.module}: {cls.name} is one of the {cls.kind}, not of the {plugin.kind}")
    return cls
