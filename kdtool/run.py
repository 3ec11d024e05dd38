"""A durable run: one command at work in a directory, so that it can be killed and resumed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kdtool.architecture import Network
from kdtool.checkpoint import Checkpoint, fingerprint, write
from kdtool.data import Data
from kdtool.engine import Engine
from kdtool.errors import Error, UsageError
from kdtool.evaluation import evaluate
from kdtool.files import atomic, slug, write_text
from kdtool.plugins import manager
from kdtool.refining import refined
from kdtool.seeds import derive
from kdtool.settings import Training
from kdtool.structure.size import measure
from kdtool.teacher_cache import FrozenTeacher
from kdtool.training import Loop, LossNotFiniteError
from kdtool.weights import load_exactly, safe_load

if TYPE_CHECKING:
    from kdtool.methods import Distiller, Refiner

# Saving may cost this share of the time since the last save; an epoch shorter than that is cheap to repeat.
SAVING_SHARE = 0.05


@dataclass
class Fit:
    """What a phase came to: the trained network and its validation metrics."""

    network: Network
    metrics: dict[str, Any]


class Run:
    """Where a strategy trains its students; every phase it names is done once, however often it is killed."""

    def __init__(
        self,
        directory: Path,
        *,
        data: Data | None,
        training: Training,
        parent: Checkpoint | None,
        entry: dict[str, Any],
    ) -> None:
        """Work in ``directory``, which exists; ``entry`` becomes the last line of the history."""
        self.directory, self.training = directory, training
        self._data = data
        self.parent, self.entry = parent, entry
        self.rows: list[dict[str, Any]] = []
        self._scores: dict[str, list[dict[str, Any]]] = {}

    @property
    def data(self) -> Data:
        """The data set of this run.

        Raises:
            UsageError: there is none.
        """
        if self._data is None:
            raise UsageError("no data set is known; name one with --data")
        return self._data

    def fit(
        self,
        name: str,
        student: Network,
        *,
        teacher: Network | None = None,
        objective: Distiller | None = None,
        constraint: Callable[[nn.Module], None] | None = None,
        **changes: Any,
    ) -> Fit:
        """Train a copy of ``student`` and return it with the weights that validated best.

        A phase that was finished before a kill returns from disk; one that was cut goes on from its last saved
        epoch. ``objective`` is the distiller whose loss is used (none: cross-entropy), ``constraint`` is called with
        the module after every step, ``changes`` replace training options for this phase.

        Raises:
            Error: the loss is not finite (the last good weights are kept), or the phase is not the one that was cut.
        """
        training = dataclasses.replace(self.training, **changes)
        module = copy.deepcopy(student.module)
        teacher_key = fingerprint(teacher.module.state_dict()) if teacher is not None else ""
        told = repr((training, objective, teacher_key, fingerprint(module.state_dict())))
        phase = Phase(self, name, f"{derive(told):x}")
        done = phase.load_result()
        if done is not None:
            load_exactly(module, done["weights"])
            return Fit(Network(student.architecture, module.eval()), done["metrics"])
        macs = measure(student)["macs"] * training.batch_size
        engine = Engine(training, macs)
        frozen = None
        if teacher is not None:
            frozen = FrozenTeacher(
                copy.deepcopy(teacher.module),
                teacher_key,
                self.directory / "cache",
                engine,
                images=len(self.data.train),
                classes=teacher.architecture.classes,
                views=training.views,
            )
        loop = Loop(
            module,
            name=name,
            data=self.data,
            training=training,
            engine=engine,
            loss=(lambda step: step.cross_entropy()) if objective is None else objective.loss,
            store=phase,
            teacher=frozen,
            constraint=constraint,
        )
        try:
            metrics = loop.run()
        except LossNotFiniteError as error:
            raise LossNotFiniteError(f"{error}; {self._rescue(name, student, loop)}") from error
        phase.save_result({"weights": module.state_dict(), "metrics": metrics})
        manager().hook.phase_ended(run=self, phase=name, metrics=metrics)
        return Fit(Network(student.architecture, module), metrics)

    def refine(self, name: str, refiner: Refiner, network: Network) -> Network:
        """Refine with random numbers that depend on the seed and ``name`` alone, so that a resumed run agrees."""
        return refined(refiner, network, self.training.seed, name)

    def evaluate(self, network: Network, split: str = "val") -> dict[str, Any]:
        """Return the metrics of a network on a split, in float32 (see `kdtool.evaluation.evaluate`)."""
        engine = Engine(dataclasses.replace(self.training, precision="fp32"), 0)
        module = copy.deepcopy(network.module)
        return evaluate(engine.place(module), self.data.split(split), engine=engine)

    def scores(self, network: Network) -> list[dict[str, Any]]:
        """Return the metrics that a result is reported with: validation and, where there is one, test.

        They are taken once for the same weights, and no strategy should choose by those of the test split.
        """
        if self._data is None:
            return []
        key = fingerprint(network.module.state_dict())
        if key not in self._scores:
            splits = ["val"] if self.data.test is None else ["val", "test"]
            self._scores[key] = [self.evaluate(network, split) for split in splits]
        return self._scores[key]

    def keep(self, name: str, network: Network, *, taught_by: str, **about: Any) -> Path:
        """Write a model as ``NAME.pt`` in the run's directory and add its line to the result's table.

        ``about`` is more plain data for the line. Returns the checkpoint's path.
        """
        scores = self.scores(network)
        size = measure(network)
        reported = scores[-1]
        self.rows.append(
            {
                "model": name,
                "taught_by": taught_by,
                "split": reported["split"],
                "error": reported["error"],
                "val_accuracy": scores[0]["accuracy"],
                "compression": self.parent.compression(size["parameters"]) if self.parent else 1.0,
                **size,
                **about,
            }
        )
        path = self.directory / f"{slug(name)}.pt"
        write(path, self.checkpoint(network, scores, note=name))
        return path

    def checkpoint(self, network: Network, metrics: list[dict[str, Any]], note: str = "") -> Checkpoint:
        """Return a checkpoint of a network that this run made."""
        entry = {**self.entry, "rows": self.rows, "size": measure(network)}
        if note:
            entry["kept"] = note
        history = [*(self.parent.history if self.parent else []), entry]
        return Checkpoint(network, self._data.spec if self._data else None, metrics, history)

    def log(self, row: dict[str, Any]) -> None:
        """Append the metrics of an epoch to metrics.jsonl and tell the listeners."""
        with open(self.directory / "metrics.jsonl", "a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        manager().hook.epoch_ended(run=self, phase=row["phase"], epoch=row["epoch"], metrics=row)

    def _rescue(self, name: str, student: Network, loop: Loop) -> str:
        if not loop.state.best_weights:
            return "no epoch was finished"
        module = copy.deepcopy(student.module)
        load_exactly(module, loop.state.best_weights)
        path = self.directory / f"{slug(name)}-last-good.pt"
        write(path, self.checkpoint(Network(student.architecture, module), [loop.state.best], note=name))
        return f"the weights of epoch {loop.state.best_epoch + 1} are kept in {path}"


class Phase:
    """The files of one phase: its state while it runs, its result when it is done."""

    def __init__(self, run: Run, name: str, key: str) -> None:
        """Open the phase; ``key`` tells whether what lies there belongs to the same phase."""
        self.run, self.name, self.key = run, name, key
        self.directory = run.directory / "phases" / slug(name)
        self.saved_at = time.monotonic()
        self.saving_took = 0.0

    def load_result(self) -> dict[str, Any] | None:
        """Return weights and metrics where the phase is finished."""
        return self._load("result.pt")

    def save_result(self, result: dict[str, Any]) -> None:
        """Finish the phase."""
        self._write("result.pt", result)
        (self.directory / "state.pt").unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """Return the state to go on from, and forget the epochs that were logged after it."""
        state = self._load("state.pt")
        _forget_epochs(self.run.directory / "metrics.jsonl", self.name, state["state"]["epoch"] if state else 0)
        return state

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save the state, unless that would take more than a small share of the time."""
        now = time.monotonic()
        if self.saving_took > SAVING_SHARE * (now - self.saved_at):
            return
        self._write("state.pt", state())
        self.saved_at = time.monotonic()
        self.saving_took = self.saved_at - now

    def log(self, row: dict[str, Any]) -> None:
        """Keep the metrics of an epoch."""
        self.run.log(row)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with atomic(self.directory / name) as temporary:
            torch.save({"key": self.key, **content}, temporary)

    def _load(self, name: str) -> dict[str, Any] | None:
        path = self.directory / name
        if not path.exists():
            return None
        content: dict[str, Any] = safe_load(path)
        if content.pop("key") != self.key:
            raise Error(
                f"{self.run.directory}: phase {self.name!r} was begun with another teacher, student or options"
                "; start anew with --force"
            )
        return content


def _forget_epochs(path: Path, phase: str, after: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # a kill may have cut the last line
            row = json.loads(line)
            if row["phase"] != phase or row["epoch"] <= after:
                kept.append(line)
    write_text(path, "".join(line + "\n" for line in kept))


@contextlib.contextmanager
def timed(entry: dict[str, Any]) -> Iterator[None]:
    """Add the seconds that the block took to a history entry."""
    started = time.perf_counter()
    yield
    entry["seconds"] = round(time.perf_counter() - started, 1)
