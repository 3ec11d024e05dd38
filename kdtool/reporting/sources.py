"""What a report is about, read from disk: checkpoints with the runs that made them, and studies."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdtool.errors import Error, UsageError
from kdtool.study.record import FILE as STUDY_FILE
from kdtool.study.record import read_study
from kdtool.training.phase import read_epochs
from kdtool.training.run_directory import directory_of, read_run

TABLES = ("rows", "means", "comparisons", "comparison_means", "failed")
"""The tables of a study's results."""


@dataclass(frozen=True)
class Trained:
    """A checkpoint, as `kdtool.inspect` tells of it (None where its run has not come to its end), and what the run
    left: what it was told, the logged epochs, its pictures by name."""

    name: str
    about: Mapping[str, Any] | None = None
    told: Mapping[str, Any] | None = None
    epochs: list[dict[str, Any]] = field(default_factory=list)
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Studied:
    """A study: its results, see `run_study`, and its commands by the names of what they made."""

    name: str
    results: Mapping[str, Any]
    commands: Mapping[str, str]


def read_sources(paths: Iterable[Path]) -> list[Trained | Studied]:
    """Return what lies at the paths, each once: a run and its checkpoint are one.

    Raises:
        UsageError: a path is neither a checkpoint nor the directory of a run or a study.
        Error: what lies there is damaged.
    """
    found: dict[Path, Trained | Studied] = {}
    for path in paths:
        study = (path / STUDY_FILE).is_file()
        key = path if study else path.with_suffix(".pt") if path.is_dir() else path
        if key.resolve() not in found:
            found[key.resolve()] = _study(path) if study else _trained(path, key)
    return list(found.values())


def _trained(path: Path, checkpoint: Path) -> Trained:
    directory = path if path.is_dir() else directory_of(path)
    told = read_run(directory)
    if told is None and path.is_dir():
        raise UsageError(f"{path}: is the directory of no run and no study; name a checkpoint, a .run or a .study")
    about = None
    if path.is_file() or (checkpoint.is_file() and told is not None and told["finished"]):
        from kdtool.commands.inspect import inspect

        about = inspect(checkpoint)
    if told is None:
        return Trained(path.name, about)
    pictures = {picture.name: picture.read_bytes() for picture in sorted(directory.glob("*.svg"))}
    return Trained((checkpoint if about else path).name, about, told, read_epochs(directory), pictures)


def _study(directory: Path) -> Studied:
    path = directory / "results.json"
    if not path.exists():
        raise UsageError(f"{directory}: this study has no results yet; kdtool run writes them when it ends")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        results = None
    if not isinstance(results, dict) or not all(_rows(results.get(table)) for table in TABLES):
        raise Error(f"{path}: is damaged; kdtool run writes it anew")
    commands = read_study(directory)["commands"]
    lines = {name: shlex.join(["kdtool", *entry["told"]["command"]]) for name, entry in commands.items()}
    return Studied(directory.name, results, lines)


def _rows(table: Any) -> bool:
    return isinstance(table, list) and all(isinstance(row, dict) for row in table)
