"""The names that an exporter cannot have, since ``kdtool export --NAME`` selects it."""

from __future__ import annotations

import contextlib
import functools

from kdtool.data.options import DataOptions
from kdtool.errors import UsageError
from kdtool.plugins.entry_points import installed
from kdtool.plugins.options import Options
from kdtool.plugins.registry import load
from kdtool.plugins.reserved import FLAGS, words_of


@functools.cache
def option_names() -> frozenset[str]:
    """Return what the options of ``kdtool export`` and of its built-in exporters are called, without the hyphens."""
    groups: list[type[Options]] = [DataOptions]
    for plugin in installed():
        if plugin.kind == "exporters" and plugin.builtin:
            with contextlib.suppress(UsageError):
                groups.append(load(plugin))
    return frozenset({*FLAGS["exporters"], *words_of(groups)})
