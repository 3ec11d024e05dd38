"""The directory of a run: which command it belongs to, whether it is finished, and the lock of its process."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from kdtool.data.fingerprint import changes, checked
from kdtool.errors import Error, UsageError
from kdtool.utils.files import check_output, write_text
from kdtool.utils.strict_json import dumps

# The keys of the fingerprints of the images in a flat ``run.json``.
SPLITS = "data.splits."

# What may differ because the images do.
FOUND_IN_IMAGES = ("data.mean", "data.std", "data.white")


@dataclass
class RunDirectory:
    """A directory beside the output. Its ``run.json`` says which command runs there."""

    path: Path
    identity: dict[str, Any]
    """The command and its settings as plain data."""
    finished: bool

    def finish(self) -> None:
        """Mark the run as finished and remove the files that only a resumed run needs."""
        self._write(finished=True)
        shutil.rmtree(self.path / "phases", ignore_errors=True)
        shutil.rmtree(self.path / "cache", ignore_errors=True)

    def _write(self, *, finished: bool) -> None:
        self.finished = finished
        about = {**self.identity, "finished": finished}
        write_text(self.path / "run.json", dumps(about, indent=1, default=str) + "\n")


def directory_of(output: Path) -> Path:
    """Return the directory of the command that makes ``output``: ``student.run`` for ``student.pt``."""
    return output.with_suffix(".run")


@contextlib.contextmanager
def run_directory(output: Path, identity: Mapping[str, Any], *, force: bool, resume: bool) -> Iterator[RunDirectory]:
    """Open the run's directory for this process alone.

    ``identity`` is the command with its settings, as plain data; a run is resumed only by the same command.

    Raises:
        UsageError: the output or an earlier run exists, or the earlier run was another command.
        Error: another process works there.
    """
    path = directory_of(output)
    plain: dict[str, Any] = json.loads(dumps(identity, default=str))
    earlier = read_run(path)
    if earlier is not None and resume:
        _check_same(path, earlier, plain)
    else:
        check_output(output, force=force)
        if path.exists():
            if not force:
                raise UsageError(
                    f"{path}: holds an earlier run; continue it with --resume, or start again with --force"
                )
            if earlier is None and any(path.iterdir()):
                raise UsageError(f"{path}: exists and is not a run of kdtool; name another output with -o")
    try:
        _make(path)
        with filelock.FileLock(path / "lock", timeout=0):
            if earlier is not None and not resume:
                _empty(path)
            directory = RunDirectory(path, plain, finished=bool(resume and earlier and earlier["finished"]))
            if not (resume and earlier):
                directory._write(finished=False)
            try:
                yield directory
            except BaseException:
                written = (path / "phases").rglob("*")
                if not any(entry.is_file() for entry in written):  # no phase was begun: leave nothing behind
                    shutil.rmtree(path)
                raise
    except filelock.Timeout as error:
        raise Error(
            f"{path}: another process works there; wait until it ends, or name another output with -o"
        ) from error


def _make(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise Error(f"{path}: cannot be created: {error.strerror}; name another output with -o") from error


def read_run(path: Path) -> dict[str, Any] | None:
    """Return the content of ``run.json`` in a directory, or None if there is no such file.

    Raises:
        UsageError: the file is damaged.
    """
    try:
        content = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}/run.json: is damaged; remove the directory {path}") from error
    if not isinstance(content, dict) or "finished" not in content:
        raise UsageError(f"{path}/run.json: is damaged; remove the directory {path}")
    return content


def _check_same(path: Path, earlier: dict[str, Any], identity: dict[str, Any]) -> None:
    """Check that a run is resumed by the same command on the same images.

    Raises:
        UsageError: they differ.
    """
    # Releases that did not record the images cannot tell whether they are the same.
    images = changes(_splits(earlier), _splits(identity))
    found = FOUND_IN_IMAGES if images else ()
    before, now = _flat(earlier), _flat(identity)
    different = [
        f"{key} was {_short(before.get(key))}, now {_short(value)}"
        for key, value in now.items()
        if before.get(key) != value and not key.startswith((SPLITS, *found))
    ]
    if different:
        raise UsageError(
            f"{path}: --resume needs the same command: {'; '.join(different[:3])}; start again with --force"
        )
    if images:
        raise UsageError(
            f"{path}: --resume needs the same images: {'; '.join(images)}; bring them back, or start again with --force"
        )


def _splits(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprints of the splits in ``run.json``."""
    data = about.get("data")
    return checked(data.get("splits") or {}) if isinstance(data, Mapping) else {}


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _short(value: Any) -> str:
    text = dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.name == "lock":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
