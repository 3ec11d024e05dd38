"""The names of networks: a list of all in the user's cache, and what is known of names that no source has.

With the list, names can be completed without the import of a large library.

A source's list is written when its library is imported anyway, or by a process in the background when it is missed. It
is valid for one version of the plugin and of the library that the source names.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool.errors import Error
from kdtool.plugins.entry_points import Plugin, installed, names
from kdtool.plugins.registry import load, make
from kdtool.utils.files import cache_directory, slug, write_text

if TYPE_CHECKING:
    from kdtool.models.source import Source

BUSY = 60.0
"""Seconds after which another process in the background may be started; one needs a few."""


@dataclass
class NameList:
    """The networks of a source, with the parameters of those that were counted."""

    names: list[str] = field(default_factory=list)
    parameters: dict[str, int | None] = field(default_factory=dict)
    """None for a network that cannot be built for its own classes and images."""


def known(source: str) -> list[str] | None:
    """Return the names of a source's networks from the cache, or None if there is no list of the present version."""
    stored = read(source)
    return None if stored is None else stored.names


def named(network: str) -> list[str]:
    """Return ``SOURCE:NAME`` for each source that has a network of this name, as far as that is known."""
    return [f"{source}:{network}" for source in names("teachers") if network in (known(source) or ())]


def read(source: str) -> NameList | None:
    """Return the list of a source from the cache, or None if there is none of the present version.

    A built-in source that needs no library is asked for its list.
    """
    return _stored(source) or _of_no_library(source)


def _of_no_library(source: str) -> NameList | None:
    plugin = _plugin(source)
    if plugin is None or not plugin.builtin or load(plugin).library:
        return None
    with contextlib.suppress(Exception):  # as in refresh
        return NameList(sorted(make("teachers", source).networks()))
    return None


def _stored(source: str) -> NameList | None:
    path = _path(source)
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path else None
        if not isinstance(content, dict) or content.get("version") != _version(source):
            return None
        return NameList(list(map(str, content["names"])), _numbers(content["parameters"]))
    except (OSError, ValueError, KeyError, TypeError, Error):
        return None


def remember(source: Source, parameters: Mapping[str, int | None] | None = None) -> NameList:
    """Write the list of a source whose library is imported already or may be; return it.

    ``parameters`` are added to the numbers that are known. Without a cache that can be written nothing is kept.
    """
    stored = _stored(source.name)
    if stored is not None and not parameters:
        return stored
    known = stored or NameList(sorted(source.networks()))
    known.parameters |= parameters or {}
    if path := _path(source.name):
        with contextlib.suppress(Error):
            content = {"version": _version(source.name), "names": known.names, "parameters": known.parameters}
            write_text(path, json.dumps(content))
    return known


def refresh_in_background() -> None:
    """Start a process that writes the lists of all sources, unless one was started a moment ago."""
    folder = cache_directory()
    if folder is None:
        return
    mark = folder / "networks.busy"
    with contextlib.suppress(OSError):
        if mark.exists() and time.time() - mark.stat().st_mtime < BUSY:
            return
        mark.touch()
        subprocess.Popen(
            [sys.executable, "-P", "-c", "from kdtool.models.names import refresh; refresh()"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def refresh() -> None:
    """Write the lists of all sources; one that is broken is left out."""
    for source in names("teachers"):
        with contextlib.suppress(Exception):  # a plugin and its library may fail in any way
            remember(make("teachers", source))


def _numbers(parameters: Any) -> dict[str, int | None]:
    return {str(name): None if number is None else int(number) for name, number in parameters.items()}


def _path(source: str) -> Path | None:
    folder = cache_directory()
    return None if folder is None else folder / f"networks-{slug(source)}.json"


def _plugin(source: str) -> Plugin | None:
    return next((plugin for plugin in installed() if (plugin.kind, plugin.name) == ("teachers", source)), None)


def _version(source: str) -> str:
    """Return the versions of the plugin and of its library."""
    plugin = _plugin(source)
    if plugin is None:
        raise Error(f"{source}: is not installed")
    library = load(plugin).library
    versions = f"{plugin.distribution} {plugin.version}"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"{versions}, {library} {importlib.metadata.version(library)}" if library else versions
    return versions


# Beginnings of a name, or of a part of it.
_TASKS = {
    "detection": "yolo fasterrcnn faster_rcnn maskrcnn mask_rcnn keypointrcnn rcnn retinanet ssd300 ssd512 ssdlite "
    "ssd_ fcos detr rtdetr deformable_detr efficientdet centernet rfdetr groundingdino",
    "segmentation": "unet deeplab fcn lraspp segformer mask2former maskformer pspnet upernet sam_ segnet bisenet",
    "text": "bert roberta distilbert gpt llama mistral qwen t5 bart electra",
    "speech": "whisper wav2vec hubert",
    "generating images": "stable_diffusion stablediffusion sdxl flux dcgan stylegan",
}


def other_task(network: str) -> str:
    """Return ``; NAME is a network for ...``, the end of a message, or an empty text for a name that is not known."""
    word = network.lower().replace("-", "_")
    for task, beginnings in _TASKS.items():
        pattern = "|".join(map(re.escape, beginnings.split()))
        if re.search(rf"(?:^|[_/])(?:{pattern})", word):
            return f"; it is a network for {task}, and kdtool works with image classifiers"
    return ""
