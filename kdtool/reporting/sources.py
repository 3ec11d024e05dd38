"""Read what a report describes from the disk: checkpoints with the runs that made them, and studies."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdtool.errors import Error, UsageError
from kdtool.study.recipe import MAX_COMMANDS, MAX_KEYS
from kdtool.study.record import FILE as STUDY_FILE, read_study
from kdtool.study.results import means
from kdtool.training.phase import LOG, read_epochs
from kdtool.training.run_directory import directory_of, read_run
from kdtool.utils.files import read_text
from kdtool.utils.forms import CELL, ROWS, TEXT, Each, Either, Named, misfit
from kdtool.utils.kinds import is_checkpoint_folder
from kdtool.utils.strict_json import load

LARGEST_PICTURE, MOST_PICTURES = 16 << 20, 64
"""How many bytes of a picture are read, and how many pictures of a run."""

MOST_ROWS = 10 * MAX_COMMANDS
"""The largest number of rows of a table of a study: it may have more comparisons than commands."""

MEASURED = Each({"name": TEXT, "step!": TEXT, "values!": Named(CELL), "accuracy": CELL, "val_accuracy": CELL})

RESULTS = {
    **{"rows!": MEASURED, "means!": MEASURED, "failed!": ROWS, "not_run": Each(TEXT), "notes": Each(TEXT)},
    **dict.fromkeys(("comparisons!", "comparison_means!"), Each({"values!": Named(CELL)})),
}
"""The form of a study's results, see `misfit`."""

RECORDED = Named({"told!": {"command!": Each(TEXT)}, "row": Either(None, {})})
"""The form of the commands in a study's record."""


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint and the run that made it; one of the two may be missing."""

    name: str
    about: Mapping[str, Any] | None = None
    """The result of `kdtool.inspect`; None if the run is not finished."""
    run: Mapping[str, Any] | None = None
    """The content of ``run.json``; None if there is no run."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """The lines of ``metrics.jsonl``."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """The content of each ``*.svg`` file of the run, by name."""
    files: tuple[Path, ...] = ()
    """The checkpoint, the directory of the run and its log, as far as they exist."""


@dataclass(frozen=True)
class StudySource:
    """The results of a study and its commands."""

    name: str
    results: Mapping[str, Any]
    """What `run_study` returned."""
    commands: Mapping[str, str]
    """Each command that has a result or failed as one line, by its name."""
    planned: int = 0
    """The number of commands of its recipe, also of those that have not run yet."""
    files: tuple[Path, ...] = ()
    """The directory of the study and its results."""


def read_sources(paths: Iterable[Path]) -> list[CheckpointSource | StudySource]:
    """Return the sources at the paths. A run and its checkpoint are one source, which is returned once.

    Sources with one file name in several directories have as much of their paths as tells them apart.

    Raises:
        UsageError: a path is neither a checkpoint nor the directory of a run or a study.
        Error: a file is damaged.
    """
    sources: dict[Path, CheckpointSource | StudySource] = {}
    directories: list[Path] = []
    for path in paths:
        study = (path / STUDY_FILE).is_file()
        key = path.with_suffix(".pt") if path.is_dir() and not (study or is_checkpoint_folder(path)) else path
        if key.resolve() not in sources:
            sources[key.resolve()] = _study(path) if study else _checkpoint(path, key)
            directories.append(path.absolute().parent)
    return _told_apart([*sources.values()], directories)


def _told_apart(
    sources: Sequence[CheckpointSource | StudySource], directories: Sequence[Path]
) -> list[CheckpointSource | StudySource]:
    """Return sources in these directories, those of one name with as many directories as tell them apart."""
    upwards = [(source.name, *directory.parts[::-1]) for source, directory in zip(sources, directories, strict=True)]
    result = []
    for source, own in zip(sources, upwards, strict=True):
        alike = [parts for parts in upwards if parts[0] == source.name]
        depths = range(1, max(map(len, alike)) + 1)
        depth = next((depth for depth in depths if len({parts[:depth] for parts in alike}) == len(alike)), 1)
        result.append(replace(source, name="/".join(own[:depth][::-1])))
    return result


def _checkpoint(path: Path, checkpoint: Path) -> CheckpointSource:
    if is_checkpoint_folder(path):
        from kdtool.commands.inspect import inspect

        return CheckpointSource(path.name, inspect(path), files=_existing(path))
    directory = path if path.is_dir() else directory_of(path)
    # An ONNX file is not what the run of the same name made.
    run = None if path.suffix.lower() == ".onnx" else read_run(directory)
    if run is None and path.is_dir():
        raise UsageError(f"{path}: is not the directory of a run or a study; name a checkpoint, a .run or a .study")
    if not (path.is_dir() or path.is_file()) and (run is None or path.exists()):
        raise UsageError(f"{path}: {'is no regular file' if path.exists() else 'there is no such file'}")
    about = None
    if path.is_file() or (checkpoint.is_file() and run is not None and run["finished"]):
        from kdtool.commands.inspect import inspect

        about = inspect(checkpoint)
    if run is None:
        return CheckpointSource(path.name, about, files=_existing(path))
    pictures = {picture.name: _picture(picture) for picture in sorted(directory.glob("*.svg"))[:MOST_PICTURES]}
    name = (checkpoint if about else path).name
    files = _existing(checkpoint, directory, directory / LOG)
    return CheckpointSource(name, about, run, read_epochs(directory), pictures, files)


def _existing(*paths: Path) -> tuple[Path, ...]:
    return tuple(path for path in paths if path.exists())


def _picture(path: Path) -> bytes:
    try:
        return read_text(path, LARGEST_PICTURE).encode()
    except ValueError as error:
        raise Error(f"{path}: is no picture of a run ({error}); remove it") from error


def _study(directory: Path) -> StudySource:
    path = directory / "results.json"
    if not path.exists():
        raise UsageError(f"{directory}: this study has no results yet; kdtool run writes them")
    try:
        results = load(path)
    except ValueError:
        results = None
    if misfit(results, RESULTS) is not None or _is_too_large(results):
        raise Error(f"{path}: is damaged; run kdtool run again, which writes it anew")
    recorded = read_study(directory)["commands"]
    if misfit(recorded, RECORDED) is not None:
        raise Error("the record of the study is damaged")
    failed = [row["name"] for row in results["failed"] if isinstance(row.get("name"), str)]
    commands = [row.get("name", "") for row in results["rows"]]
    commands += [name for name in failed if not name.startswith("compare ")]
    planned = len(commands) + len(results.get("not_run", ()))
    results = _still_true(results, recorded)
    lines = {
        name: shlex.join(["kdtool", *recorded[name]["told"]["command"]])
        for name in [*(row.get("name") for row in results["rows"]), *failed]
        if name in recorded
    }
    return StudySource(directory.name, results, lines, planned, _existing(directory, path))


def _is_too_large(results: Mapping[str, Any]) -> bool:
    """Return whether results have more rows, or more keys of the matrix, than any study can have."""
    tables = [results[name] for name in ("rows", "means", "comparisons", "comparison_means")]
    keys = {key for table in tables for row in table for key in row["values"]}
    return len(keys) > MAX_KEYS or max(len(table) for table in (*tables, results["failed"])) > MOST_ROWS


def _still_true(results: Mapping[str, Any], recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a study's results without the rows whose command changed since, and without what was computed of them.

    Only a study that was killed has such rows: it writes its results seldom while it runs, or, in release 0.1, when
    it ends.
    """
    rows = [row for row in results["rows"] if _made(row, recorded.get(row.get("name")))]
    if len(rows) == len(results["rows"]):
        return results
    return {**results, "rows": rows, "means": means(rows), "comparisons": [], "comparison_means": []}


def _made(row: Mapping[str, Any], entry: Mapping[str, Any] | None) -> bool:
    """Return whether the command in the record made a row; one that the record does not know stands beside none."""
    if entry is None:
        return True
    numbers = entry.get("row") or {}
    return entry.get("status") == "done" and all(row.get(key, value) == value for key, value in numbers.items())
