"""The distributions of the plugins that took part in a command, for its history and for a message where one is gone."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kdtool.plugins.entry_points import installed, names
from kdtool.plugins.method import Method
from kdtool.utils.formatting import printable

OWN = ("kdtool", "torch")
"""The distributions in every entry's versions."""

PluginName = tuple[str, str]
"""The kind of a plugin and its name."""


def plugins_in(*methods: Method | None) -> Iterator[PluginName]:
    """Yield the kinds and names of methods and of those in their roles."""
    for method in methods:
        if method is not None:
            yield method.kind, method.name
            inner = (getattr(method, info.name) for info in method.describe())
            yield from plugins_in(*(value for value in inner if isinstance(value, Method)))


def own_versions() -> dict[str, str]:
    """Return the versions that every entry of a history has."""
    return {name: importlib.metadata.version(name) for name in OWN}


def versions_of(plugins: Iterable[PluginName]) -> dict[str, str]:
    """Return the distributions that brought plugins, with their versions; kdtool's own are left out."""
    wanted = {*plugins}
    found = [plugin for plugin in installed() if (plugin.kind, plugin.name) in wanted and not plugin.builtin]
    return {plugin.distribution: plugin.version for plugin in found}


def comes_with(kind: str, name: str, history: Sequence[Mapping[str, Any]]) -> str:
    """Return the end of a message that a plugin is missing: what to install, as far as a checkpoint's history tells.

    The text is empty if the plugin is there, or nothing is recorded.
    """
    if name in names(kind):
        return ""
    used = [entry for entry in history if name in (entry.get("method"), _data_set(entry))]
    others: dict[str, str] = {}
    for entry in used or history:
        others |= {key: version for key, version in entry.get("versions", {}).items() if key not in OWN}
    there = {plugin.distribution for plugin in installed()}
    gone = [key for key in others if key not in there] or list(others)
    told = " or ".join(printable(f"{key} {others[key]}", 100) for key in gone)
    return f"; it comes with {told}: install that" if told else ""


def _data_set(entry: Mapping[str, Any]) -> str:
    return str(entry.get("data", {}).get("name", "")).partition(":")[0]
