"""The directory of a run: which command it belongs to, whether it is finished, and the lock of its process.

A process may be killed between any two operations on files. So whatever it leaves has a meaning: a directory without
``run.json`` was never begun, temporary files belong to nobody once the lock is free, and what a finished run has left
is removed by the next call. Only what a call made itself is removed when it fails.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from kdtool.errors import Error, UsageError
from kdtool.training.history_entry import SPENT
from kdtool.utils.files import check_output, remove, write_text
from kdtool.utils.forms import COUNT, FLAG, TEXT, Either, misfit
from kdtool.utils.strict_json import dumps, load

# The lock outlives a run. A kill before the first write of ``run.json`` leaves nothing else.
LOCK = "lock"

PATIENCE = 1.0
"""The seconds in which a lock must become free: who only looks whether a process works there holds it for a moment."""

RUN = {
    **{"finished!": FLAG, "command": TEXT, "method": Either(None, TEXT), "options": {}},
    "training": {"epochs": COUNT},
    "data": Either(None, {"name": Either(None, TEXT)}),
}
"""The form of ``run.json``, see `misfit`."""

# The key that tells the network that is trained, and what releases before 0.2 did not write in a flat ``run.json``.
BEGINS, SINCE_0_2 = "begins", {"begins.network", "training.norm_decay"}

OTHER_RELEASE = "{} was begun by another release of kdtool; finish it with that release, or start again with --force"

FINISHED = "finished"
# The keys of the fingerprints of the images in a flat ``run.json``, and what may differ because the images do.
SPLITS = "data.splits."
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
        self.tidy()

    def reopen(self) -> None:
        """Mark a finished run as not finished, because its result is to be made again."""
        self._write(finished=False)

    def tidy(self) -> None:
        """Remove the files of a finished run that only a resumed run needs; a kill may have left some of them."""
        for name in ("phases", "cache"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        (self.path / SPENT).unlink(missing_ok=True)

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
    earlier = _earlier(path, force=force and not resume)
    resumed = resume and earlier is not None
    if resumed and earlier is not None:
        _check_same(output, earlier, plain)
    else:
        check_output(output, force=force)
        check_free(path, force=force)
    made = _make(path)
    with _locked(path):
        if _earlier(path, force=force and not resume) != earlier:  # it ended while this one waited for the lock
            raise Error(_BUSY.format(path))
        _sweep(path)
        if earlier is not None and not resumed:
            _empty(path)
        directory = RunDirectory(path, plain, finished=bool(resumed and earlier and earlier["finished"]))
        try:
            if not resumed:
                directory._write(finished=False)
            yield directory
        except BaseException:
            if not resumed and not has_progress(path):  # this call made all that is here, and trained nothing
                _empty(path)
                if made or earlier is not None:
                    shutil.rmtree(path, ignore_errors=True)
            raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = filelock.FileLock(path / LOCK, timeout=PATIENCE)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise Error(_BUSY.format(path)) from error
    except OSError as error:
        raise Error(f"{path}: cannot be written: {error.strerror or error}; name another output with -o") from error
    try:
        yield
    finally:
        lock.release()


_BUSY = "{}: another process works there; wait until it ends, or name another output with -o"


def has_progress(path: Path) -> bool:
    """Return whether a directory holds the weights of a training: a phase, or those kept after a loss that failed."""
    phases = (path / "phases").rglob("*.pt")
    return any(entry.is_file() for entry in phases) or any(path.glob("*-last-good.pt"))


def is_unused(path: Path) -> bool:
    """Return whether there is no directory, or one that a process left before it began its run there.

    It may be a link to an empty folder, such as one on a faster disk. Behind a link nothing is taken for a temporary
    file of kdtool's, which would be removed.
    """
    if not path.is_dir():
        return not path.exists() and not path.is_symlink()
    return all(entry.name == LOCK or (_is_temporary(entry) and not path.is_symlink()) for entry in path.iterdir())


def check_free(path: Path, *, force: bool) -> None:
    """Check that a new run may begin in a directory.

    Raises:
        UsageError: it holds something else, or an earlier run and ``force`` is false.
    """
    earlier = _earlier(path, force=force)
    if earlier is None and not is_unused(path):
        raise UsageError(f"{path}: exists and is not a run of kdtool; name another output with -o")
    if earlier is not None and not force:
        raise UsageError(f"{path}: holds an earlier run; continue it with --resume, or start again with --force")


def _earlier(path: Path, *, force: bool) -> dict[str, Any] | None:
    """Return the ``run.json`` of an earlier run; with ``force`` a damaged one is that of an unknown run."""
    try:
        return read_run(path)
    except UsageError:
        if force:
            return {"finished": False}
        raise


def _make(path: Path) -> bool:
    """Create the directory, and return whether there was none."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise Error(f"{path}: cannot be created: {error.strerror}; name another output with -o") from error
    return True


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".tmp"


def _sweep(path: Path) -> None:
    """Remove the temporary files of processes that were killed; the lock says that no process works here."""
    for entry in list(path.rglob(".*.tmp")):
        remove(entry)  # an export works in a folder


def read_run(path: Path) -> dict[str, Any] | None:
    """Return the content of ``run.json`` in a directory, or None if there is no such file.

    Raises:
        UsageError: the file is damaged.
    """
    try:
        content: dict[str, Any] = load(path / "run.json")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path}/run.json: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path}/run.json: is damaged; {_DAMAGED.format(path)}") from error
    if misfit(content, RUN) is not None:
        raise UsageError(f"{path}/run.json: is damaged; {_DAMAGED.format(path)}")
    return content


_DAMAGED = "start again with --force, or remove the directory {}"


def _check_same(output: Path, earlier: dict[str, Any], identity: dict[str, Any]) -> None:
    """Check that the run of ``output`` is resumed by the same command on the same images.

    Raises:
        UsageError: they differ.
    """
    # Releases that did not record the images cannot tell whether they are the same.
    from kdtool.data.fingerprint import changes, moved, prints_in  # imports torch

    path, earlier = directory_of(output), moved(earlier, identity)
    images = changes(prints_in(earlier), prints_in(identity))
    without = (SPLITS, FINISHED, *(FOUND_IN_IMAGES if images else ()))
    lacking = SINCE_0_2 & _flat(identity).keys() - _flat(earlier).keys()
    if lacking and earlier.get("command") == identity.get("command"):
        raise UsageError(OTHER_RELEASE.format(path))
    if different := changed(earlier, identity, without):
        hint = "" if changed(earlier, identity, (*without, "training.")) else _for_longer(output, earlier, identity)
        raise UsageError(f"{path}: --resume needs the same command: {different}; {hint}start again with --force")
    if images:
        raise UsageError(
            f"{path}: --resume needs the same images: {'; '.join(images)}; bring them back, or start again with --force"
        )


def _for_longer(output: Path, earlier: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """Return how the result of a finished run is trained for more epochs; nothing if that was not asked for.

    The epochs also decide the recipe, and so the other settings of a training.
    """
    epochs, more = (_flat(about).get("training.epochs") for about in (earlier, identity))
    is_more = isinstance(epochs, int) and isinstance(more, int) and more > epochs > 0
    if not (is_more and earlier[FINISHED] and output.exists()):
        return ""
    command = earlier.get("command")
    if command == "teacher":
        way = f"kdtool distill {output} --student {output} --method none"
    elif command in ("distill", "prune"):
        way = f"kdtool distill TEACHER --student {output}"
    else:
        return ""
    return f"to train {output} for longer: {way}; or "


def changed(earlier: Mapping[str, Any], identity: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    """Return in words up to three settings of a command that are not those of an earlier one; empty if there are none.

    What begins with one of ``without`` is not compared.
    """
    before, now = _flat(earlier), _flat(identity)
    different = [
        f"{key} was {_short(before.get(key))}, now {_short(now.get(key))}"
        for key in {**now, **before}
        if before.get(key) != now.get(key) and not key.startswith(without)
    ]
    return "; ".join(different[:3])


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
        if entry.name != LOCK:
            remove(entry)
