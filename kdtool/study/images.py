"""The images that a command of a study would read now, compared with those that it recorded."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdtool.data.checks import Files
from kdtool.data.dataset import without_path
from kdtool.data.fingerprint import changes, fingerprint_of
from kdtool.data.opening import root_of, splits_now, unlabelled_of
from kdtool.data.spec import DataSpec
from kdtool.errors import Error
from kdtool.study.recipe import option_value

NAMING = ("--data", "--data-dir", "--unlabelled")
"""The options of a command that name its images."""


def changes_of(words: Sequence[str], data: Mapping[str, Any]) -> list[str]:
    """Return in words how the images that a command reads now differ from those of a description of a data set.

    ``words`` are those of the command; a relative path in them is one from the current folder, as it is for the command
    itself. ``data`` is a description as a checkpoint or the run of the command holds it. A run does not record the
    directory; without one in ``words`` it is not known which images the command reads, and the list is empty.

    Raises:
        Error: the images are missing, or the description is damaged.
    """
    typed = {option: option_value(words, option) for option in NAMING}
    if "directory" not in data and not typed["--data"] and not typed["--data-dir"]:
        return []
    spec = DataSpec.from_data({"directory": None, **data})
    if typed["--data-dir"]:
        spec = dataclasses.replace(spec, directory=str(Path(typed["--data-dir"]).expanduser().resolve()))
    elif typed["--data"] and os.environ.get("KDTOOL_DATA"):
        spec = dataclasses.replace(spec, directory=None)  # the command looks there, wherever it looked before
    if typed["--data"]:
        spec = dataclasses.replace(spec, name=typed["--data"])
    now = splits_now(spec)
    if typed["--unlabelled"] and (more := unlabelled_of(typed["--unlabelled"], root_of(spec))) is not None:
        files = Files()
        files.add(more[1])
        now["unlabelled"] = fingerprint_of(more[1], spec.classes, files.of(more[1]))
    return changes(spec.splits, now)


def moved(told: Mapping[str, Any], now: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Return whether what identified a command, ``told``, is what identifies it now, but for the places of its images.

    ``entry`` is what the record says of the command. Where it is done, the images have to be those that it was made of.
    A run that was begun compares its images itself.
    """
    same = told["inputs"] == now["inputs"] and _without_places(told["command"]) == _without_places(now["command"])
    if not same or entry.get("status") != "done":
        return same
    data = entry.get("data") or {}
    try:
        return bool(data.get("splits")) and not changes_of(now["command"], data)
    except Error:
        return False


def _without_places(words: Sequence[str]) -> list[str]:
    """Return the words of a command without those that only say in which directory its images are."""
    kept, rest = [], iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option not in NAMING:
            kept.append(word)
            continue
        value = value if equals else next(rest, "")
        if option != "--data-dir":
            kept += [option, without_path(value)]
    return kept
