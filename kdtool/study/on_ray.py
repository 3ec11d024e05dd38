"""A Ray cluster as the place where the commands of a study run."""

from __future__ import annotations

import dataclasses
import os
import uuid
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdtool.errors import Error
from kdtool.study import ray_worker
from kdtool.study.places import Exit
from kdtool.study.ray_worker import Outcome, Task
from kdtool.study.recipe import ONNX, Command
from kdtool.study.record import Record
from kdtool.study.start import RAY_MARK, Start
from kdtool.utils.files import atomic
from kdtool.utils.kinds import checkpoint_files
from kdtool.utils.progress import say
from kdtool.utils.ray_cluster import Cluster, why

# What of the data sets of KDTOOL_DATA goes through the object store; it has to fit into the memory of every machine.
MOST_DATA = 2**30


class OnRay:
    """Commands as tasks of Ray, each in a worker with the cores and GPUs that were asked for.

    Where a machine sees the study's directory, the command works in it, and a task whose worker died goes on from its
    last saved epoch on any other. Elsewhere the files that a command reads and makes go through Ray's object store.
    """

    def __init__(self, record: Record, cluster: Cluster) -> None:
        """Find out which machines see the directory.

        Raises:
            Error: a machine has no kdtool, or another version; or data have to be sent, and are too large.
        """
        self.record, self.cluster, self.at_once = record, cluster, cluster.at_once
        self._starts: dict[str, Start] = {}
        self.directory = record.directory.resolve()
        self.token = _mark(self.directory)
        try:
            machines = cluster.on_each_machine(ray_worker.look, str(self.token))
            own = version("kdtool")
            for machine in machines:
                if machine.version != own:
                    raise Error(f"Ray: {machine.name} has kdtool {machine.version}, not {own}; install the same on all")
            self.blind = sorted({machine.name for machine in machines if not machine.sees})
            self.data = self._data()
        except BaseException:
            self.token.unlink(missing_ok=True)
            raise

    def has_room(self, running: int) -> bool:
        """Return that a command can always be submitted: Ray lets it wait, and may add machines for it."""
        return True

    def submit(self, command: Command) -> Future[Outcome]:
        """Hand a command to Ray, which runs it where and when there is room."""
        start = self._starts[command.name] = self.record.start(command)
        say(f"{command.name}: {'resumes' if start.resume else 'begins'} when Ray has room")
        return self.cluster.submit(ray_worker.run, self._task(command, start))

    def ended(self, command: Command, future: Future[Outcome]) -> Exit:
        """Return how a command ended; what it made elsewhere is written into the study's directory."""
        start, error = self._starts.pop(command.name), future.exception()
        outcome = future.result() if error is None else Outcome(1, 0.0, why(error))
        began = bool(outcome.files)  # it began elsewhere, and now its files take the place of older ones
        if began:
            self.record.begin(start)
        elif start.has_begun_in(self.directory):
            began = True
            self.record.begun(start)
        for name, content in outcome.files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as temporary:
                temporary.write_bytes(content)
        return Exit(outcome.code, outcome.seconds, outcome.error, began)

    def stop(self) -> None:
        """End all tasks."""
        self.cluster.stop()
        self.token.unlink(missing_ok=True)

    def _task(self, command: Command, start: Start) -> Task:
        task = Task(
            start=start,
            words=tuple(command.words(self.directory)),
            exports=command.suffix == ONNX,
            token=str(self.token),
            cwd=str(Path.cwd()),
            environment={name: value for name, value in os.environ.items() if name.startswith("KDTOOL_")},
        )
        if not self.blind:
            return task
        # A file that is named by an absolute path goes under a name of its own.
        names, words = {}, command.words(Path())
        for number, (typed, path) in enumerate(self.record.inputs(command).items()):
            own = path.parent == self.record.directory
            names[typed] = path.name if own else f"input-{number}/{path.name}"
        sent = {
            str(Path(names[typed]) / file.relative_to(path)): file.read_bytes()
            for typed, path in self.record.inputs(command).items()
            for file in (checkpoint_files(path) if path.is_dir() else (path,))
        }
        elsewhere = tuple(_replaced(word, names) for word in words)
        return dataclasses.replace(task, elsewhere=elsewhere, inputs=[self.cluster.put(sent)], data=self.data)

    def _data(self) -> list[Any]:
        """Return a list of the reference to the data sets of KDTOOL_DATA, if a machine may need them."""
        if not self.blind:
            return []
        named = os.environ.get("KDTOOL_DATA")
        sent = "checkpoints" if named is None else "checkpoints, and the data sets of KDTOOL_DATA,"
        say(f"Ray: {', '.join(self.blind)} does not see {self.directory}: {sent} go through Ray's object store")
        if named is None:
            return []
        root = Path(named).expanduser()
        files = {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}
        size = sum(path.stat().st_size for path in files.values())
        if size > MOST_DATA:
            raise Error(
                f"KDTOOL_DATA: {root} holds {size / 1e9:.1f} GB, too much to send; put it on a path that all machines "
                f"see, or name a directory of at most {MOST_DATA / 1e9:.1f} GB"
            )
        return [self.cluster.put({name: path.read_bytes() for name, path in files.items()})]


def _mark(directory: Path) -> Path:
    """Create a file by which a machine recognises a directory; it is new, so that nobody remembers its absence."""
    token = directory / f"{RAY_MARK}{uuid.uuid4().hex}"
    token.touch()
    return token


def _replaced(word: str, names: dict[str, str]) -> str:
    """Return a word of a command line with another name of a file, which may be attached to an option."""
    flag, equals, value = word.partition("=")
    if word.startswith("--") and equals:
        return f"{flag}={_replaced(value, names)}"
    return names.get(str(Path(word)), word)  # ./hub/ is hub
