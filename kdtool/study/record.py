"""What a study remembers: the inputs and the checkpoint of each command, so that no command is run twice."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from kdtool.errors import Error, UsageError
from kdtool.study.recipe import Command, Recipe, option_value
from kdtool.study.start import ENTRY, MARK, RAY_MARK, Start, marked, refusal
from kdtool.training.history_entry import Clock
from kdtool.training.run_directory import LOCK, PATIENCE, directory_of, is_unused, read_run
from kdtool.utils.files import write_text
from kdtool.utils.forms import TEXT, Each, Named, misfit
from kdtool.utils.kinds import checkpoint_files, is_checkpoint_folder
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps, load, text_hash

FILE = "study.json"

FORMAT = "kdtool-study"

STUDY = {"format!": TEXT, "commands!": Named(ENTRY), "comparisons!": Named({"made!": Each(TEXT)})}
"""The form of ``study.json``, see `misfit`."""


class Record:
    """The content of ``study.json``, which is written after every change.

    The entry of a command has ``told`` (what identifies it, see `identity`) and its ``status``; if it goes on with a
    run, the time that processes took before (``earlier``, seconds); once it ended, the time of all (``seconds``). Once
    it is done, it has the hash of its checkpoint (``made``) and of what makes a difference to a command that reads it
    (``content``; earlier releases have none), its ``row``, the description of its data set (``data``) and the options
    of its ``training``; if it failed, the ``error``.
    """

    def __init__(self, directory: Path, content: dict[str, Any]) -> None:
        self.directory = directory
        self.commands: dict[str, dict[str, Any]] = content["commands"]
        self.comparisons: dict[str, dict[str, Any]] = content["comparisons"]
        self._hashes: dict[tuple[Path, int, int], str] = {}
        self._changes: dict[str, list[str]] = {}

    def checkpoint(self, name: str) -> Path:
        """Return the path of a command's checkpoint."""
        return self.directory / f"{name}.pt"

    def file(self, command: Command) -> Path:
        """Return the path of the file that a command makes, a checkpoint or an ONNX file."""
        return self.directory / command.file

    def log(self, command: Command) -> Path:
        """Return the path of the file with what a command wrote to stderr."""
        return self.directory / f"{command.name}.log"

    def identity(self, command: Command) -> dict[str, Any]:
        """Return what a checkpoint depends on: the command's words and the hashes of the files that it reads.

        The words do not contain the study's directory, so that a study can be moved.
        """
        # A training that is repeated gives another file of the same content: of another date, for example.
        own = {f"{name}.pt": self.commands.get(name, {}).get("content") for name in command.inputs.values()}
        return {
            "command": command.words(Path()),
            "inputs": {name: own.get(name) or self.hash(path) for name, path in self.inputs(command).items()},
        }

    def inputs(self, command: Command) -> dict[str, Path]:
        """Return the files and folders of checkpoints that a command reads, by the text of each in its words."""
        files = {f"{name}.pt": self.checkpoint(name) for name in command.inputs.values()}
        for word in command.words(Path()):
            # An option's value may be attached: --weights=mine.pth.
            value = word.partition("=")[2] if word.startswith("--") and "=" in word else word
            source = value.rpartition(":")[0]  # a network of one's own: net.py:Small
            path = Path(source if source.endswith(".py") else value)
            if str(path) not in files and (path.is_file() or is_checkpoint_folder(path)):
                files[str(path)] = path
        return files

    def is_done(self, command: Command) -> bool:
        """Return whether the command's checkpoint exists, unchanged and made with the same identity and images."""
        entry = self.commands.get(command.name, {})
        path = self.file(command)
        if not (
            entry.get("status") == "done"
            and self._is_of(command, entry)
            and path.is_file()
            and entry.get("made") == self.hash(path)
        ):
            return False
        changed = self._changed(command, entry.get("data"))
        if changed:
            say(f"{command.name}: its images changed, so it is run again: {'; '.join(changed)}")
        return not changed

    def _is_of(self, command: Command, entry: Mapping[str, Any]) -> bool:
        """Return whether an entry is that of a command, whose images may lie in another directory now."""
        from kdtool.study.images import moved

        told, now = entry.get("told"), self.identity(command)
        return told == now or (told is not None and moved(told, now, entry))

    def _changed(self, command: Command, data: Mapping[str, Any] | None) -> list[str]:
        """Return in words how the images of a command differ from those of a description of its data set.

        What cannot be seen is said, once, and did not change.
        """
        from kdtool.study.images import NAMING, changes_of

        if not data:
            return []
        words = command.words(Path())
        key = dumps([data, *(option_value(words, option) for option in NAMING)], sort_keys=True)
        if key not in self._changes:
            try:
                self._changes[key] = changes_of(words, data)
            except Error as error:
                say(f"{command.name}: it cannot be seen whether its images changed ({error})")
                self._changes[key] = []
        return self._changes[key]

    def start(self, command: Command) -> Start:
        """Return how a command starts now; no file is changed yet.

        It resumes a run of the same identity, unless that cannot go on.
        """
        run = directory_of(self.file(command))
        wait_for(run)
        identity = self.identity(command)
        before = self.commands.get(command.name, {})
        # What is finished and begins again was made of other images, or its checkpoint was changed.
        resume = run.is_dir() and before.get("status") != "done" and self._is_of(command, before)
        if resume and (obstacle := self._obstacle(command, run, before.get("error"))):
            say(f"{command.name}: cannot go on, so it begins anew: {obstacle}")
            resume = False
        entry = {"told": identity, "status": "begun"}
        if resume:
            # An attempt that was killed together with its study left the time of its training alone.
            recorded = before.get("seconds", before.get("earlier", 0.0))
            entry["earlier"] = max(recorded, Clock(run).before["seconds"])
        return Start(command.name, command.file, resume, entry)

    def begin(self, start: Start) -> None:
        """Remove what an older command left at its place, and record that this one begins."""
        start.clear(self.directory)
        self.begun(start)

    def begun(self, start: Start) -> None:
        """Record that a command began: in this process, or on a machine that left its mark."""
        self.commands[start.name] = start.entry
        self.save()
        start.mark(self.directory).unlink(missing_ok=True)

    def _obstacle(self, command: Command, run: Path, error: str | None) -> str | None:
        """Return in words why the run of the same command cannot be resumed; None if nothing is known against it.

        ``error`` is that of the last attempt: some reasons are only known to the command itself.
        """
        try:
            about = read_run(run)
        except UsageError as damage:
            return refusal(str(damage))
        if about is None and not is_unused(run):  # this study was killed while it removed the run
            return f"{run}: a part of it was removed"
        if about is not None and (changed := self._changed(command, about.get("data"))):
            return f"its images changed: {'; '.join(changed)}"
        return refusal(error)

    def earlier(self, command: Command) -> float | None:
        """Return the seconds that processes took before for the run that a command resumes; None if it resumes none."""
        seconds: float | None = self.commands[command.name].get("earlier")
        return seconds

    def end(self, command: Command, **about: Any) -> None:
        """Record how a command ended: ``status``, ``seconds``, and what it made (see `numbers_of`) or the ``error``."""
        entry = self.commands[command.name] | about
        entry.pop("earlier", None)  # it is in the seconds now
        if about["status"] == "done":
            entry["made"] = self.hash(self.file(command))
            # Only what was made by the same words from the same files can take the place of what was there.
            entry["content"] = about.get("content") and text_hash([entry["told"], about["content"]])
        self.commands[command.name] = entry
        self.save()

    def save(self) -> None:
        """Write the file."""
        content = {"format": FORMAT, "commands": self.commands, "comparisons": self.comparisons}
        write_text(self.directory / FILE, dumps(content, indent=1) + "\n")

    def hash(self, path: Path) -> str:
        """Return the hash of the content of a file, or of all files of a checkpoint folder.

        A file is read again only if its size or time of change differs.
        """
        if path.is_dir():
            parts = [f"{file.name} {self.hash(file)}" for file in checkpoint_files(path)]
            return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in self._hashes:
            with open(path, "rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        return self._hashes[key]


@contextlib.contextmanager
def opened(directory: Path, *, force: bool = False) -> Iterator[Record]:
    """Open the record of a study's directory, and lock it for this process; ``force`` discards the old record.

    Raises:
        UsageError: the directory holds something else, or cannot be created.
        Error: another process runs this study.
    """
    if directory.is_dir() and not (directory / FILE).exists() and set(directory.iterdir()) - {directory / LOCK}:
        raise UsageError(f"{directory}: exists and is not a study of kdtool; name another directory with -o")
    content = read_study(directory)
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be created: {error.strerror}; name another with -o") from error
    try:
        with filelock.FileLock(directory / LOCK, timeout=PATIENCE):
            content = read_study(directory)
            if force:
                content = {**content, "commands": {}, "comparisons": {}}
            record = Record(directory, content)
            record.save()
            for mark in directory.glob(f"*{MARK}"):  # the record has what they say
                mark.unlink()
            for left in directory.glob(f"{RAY_MARK}*"):  # of processes that were killed, since this one has the lock
                left.unlink()
            yield record
    except filelock.Timeout as error:
        raise Error(
            f"{directory}: another process runs this study; wait for it, or name another directory with -o"
        ) from error


def read_study(directory: Path) -> dict[str, Any]:
    """Return the content of the record in a directory, with the commands that workers of a cluster began since.

    It is empty if there is no record.

    Raises:
        UsageError: the record is damaged.
    """
    file = directory / FILE
    if not file.exists():
        return {"commands": {}, "comparisons": {}}
    try:
        content = load(file)
    except ValueError:
        content = None
    if misfit(content, STUDY) is not None or content["format"] != FORMAT:
        raise UsageError(f"{file}: is damaged; remove the directory {file.parent}")
    record: dict[str, Any] = content
    record["commands"] |= marked(directory)
    return record


def done_already(recipe: Recipe) -> set[str]:
    """Return the names of the commands that `run_study` would not run again; nothing is changed.

    Raises:
        UsageError: the record is damaged.
    """
    record, done = Record(recipe.directory, read_study(recipe.directory)), set[str]()
    for command in recipe.commands:
        if done.issuperset(command.inputs.values()) and record.is_done(command):
            done.add(command.name)
    return done


def wait_for(run: Path) -> None:
    """Wait for a process that still works in a run; its study may have been killed before it."""
    lock = run / LOCK
    if not lock.exists():
        return
    try:
        with filelock.FileLock(lock, timeout=PATIENCE):
            return
    except filelock.Timeout:
        say(f"{run}: a process of an earlier study still works there; waiting for it")
        with filelock.FileLock(lock):
            return
