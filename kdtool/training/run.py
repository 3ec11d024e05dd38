"""A durable run: one command at work in a directory, so that it can be killed and resumed."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kdtool.data.splits import Data
from kdtool.errors import UsageError
from kdtool.features.segments import Part
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, write
from kdtool.models.conversion import conversion_of, converted, described, plain, seen_in
from kdtool.models.modules import is_opaque
from kdtool.models.reinit import reinitialize
from kdtool.models.size import measure
from kdtool.models.weights import load_exactly
from kdtool.plugins.listeners import notify
from kdtool.surgery.refiner import refined
from kdtool.training.callback import Callback
from kdtool.training.engine import engine_for
from kdtool.training.epochs.held import duplicate, fresh, holding, holding_pruned
from kdtool.training.epochs.steps import LossNotFiniteError
from kdtool.training.evaluate import VALIDATION_BATCH, evaluate_once
from kdtool.training.history_entry import HistoryEntry
from kdtool.training.loop import Loop, portable
from kdtool.training.memory.passes import fitted, kept_passes, memory_explained, record_passes
from kdtool.training.options import Training
from kdtool.training.output_cache import Cache
from kdtool.training.phase import LOG, Phase, epoch_line, read_epochs
from kdtool.training.plan import Fit, FitPlan, restored
from kdtool.training.sharing.replicas import agree_on_weights
from kdtool.training.side_by_side.workers import Workers
from kdtool.training.student import Auxiliary
from kdtool.utils.files import slug
from kdtool.utils.processes import decided, rank
from kdtool.utils.progress import epoch_ended, phase_skipped, say
from kdtool.utils.seeds import seeded
from kdtool.utils.strict_json import dumps

if TYPE_CHECKING:
    from kdtool.surgery.refiner import Refiner
    from kdtool.training.objective import Objective

Result = TypeVar("Result")


class Run:
    """The place where a strategy trains its students: each phase is trained once, however often it is killed."""

    def __init__(
        self,
        directory: Path,
        *,
        data: Data | None,
        training: Training,
        parent: Checkpoint | None,
        entry: HistoryEntry,
        teachers: Sequence[Checkpoint] = (),
        masked: bool = False,
    ) -> None:
        """Work in ``directory``, which exists.

        ``entry`` becomes the last entry of the history. ``teachers`` are all teachers that the user named; each sees
        images normalised its own way and answers in the order of the run's classes. ``masked`` says that the network
        was pruned by masks: its zeros stay zero.
        """
        self.directory, self.training, self._data = directory, training, data
        self.teachers = teachers if data is None else [seen_in(teacher, data.spec) for teacher in teachers]
        self.caches, self.logs, self.parent, self.entry = directory / "cache", directory, parent, entry
        self.workers: Workers | None = None
        self.rows: list[dict[str, Any]] = []
        self._told, self._begun = set[str](), set[Path]()
        self.masked = False
        if masked:
            self.keep_zeros()

    def keep_zeros(self) -> None:
        """Keep the zeros that the weights of layers have when a phase begins, here and in later commands."""
        self.masked = True
        self.record(masked=True)

    def record(self, **facts: Any) -> None:
        """Add facts as plain data to this command's entry in the history, such as ``reached`` and ``gates``.

        Raises:
            ValueError: a name is one of the entry's own fields.
        """
        self.entry.record(**facts)

    @property
    def data(self) -> Data:
        """The data set of this run.

        Raises:
            UsageError: there is none.
        """
        if self._data is None:
            raise UsageError("no data set is known; name one with --data")
        return self._data

    def with_training(self, **changes: Any) -> Run:
        """Return this run with other training options; its directory, results and history are the same.

        Raises:
            UsageError: there is no such option, or a value is out of bounds.
        """
        changed = copy.copy(self)
        changed.training = dataclasses.replace(self.training, **changes)
        return changed

    def fit(
        self,
        name: str,
        student: Network,
        *,
        teacher: Network | None = None,
        objective: Objective | None = None,
        part: Part | None = None,
        auxiliary: Auxiliary | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Fit:
        """Train a copy of ``student`` and return it with the weights of the epoch that validated best.

        A phase that was finished before a kill is read from the disk; one that was cut resumes after its last saved
        epoch. Without an ``objective`` the loss is the cross-entropy. ``part`` is the part of the student that learns
        (None: all of it). A copy of ``auxiliary`` learns in the same steps. What ``callbacks`` do has to follow from
        the objective, the training options and the weights (see `Callback`).

        Raises:
            Error: the loss is not finite (the last good weights are kept), the phase on the disk is another one, or the
                name was used before.
        """
        agree_on_weights([member.module for member in (student, teacher, auxiliary) if member is not None])
        plan = FitPlan(name, student, teacher, objective, part, auxiliary, self.training)
        phase = Phase(self.directory, name, plan.key, self.log, self.logs)
        phase.begin(self._begun)
        callbacks = [*callbacks, *holding(student.module, self.data, masked=self.masked)]
        module = duplicate(student.module)
        finished = decided(phase.load_result)
        if finished is not None:
            phase_skipped(name)
            record_passes(self, name, kept_passes(phase.directory))
            return restored(finished, Network(student.architecture, module), auxiliary, callbacks)
        engine = engine_for(self.training, self.training.batch_size, *plan.networks)
        plan = fitted(self, plan, module, callbacks, phase.directory, engine.device)
        train, val = plan.batches(self.data, engine, self.cache(self.training))
        student_module = plan.student_module(module)
        pruned = holding_pruned(self.teachers, auxiliary, student_module.auxiliary)
        loop = Loop(student_module, plan, train, val, engine, phase, [*callbacks, *pruned])
        try:
            with memory_explained(plan):
                metrics = loop.run()
        except LossNotFiniteError as error:
            raise LossNotFiniteError(f"{error}; {self._rescue(name, student, loop)}") from error
        others = student_module.auxiliary.module if auxiliary is not None else None
        if rank() == 0:
            phase.save_result(
                {
                    "weights": module.state_dict(),
                    "metrics": metrics,
                    "auxiliary": {} if others is None else others.state_dict(),
                    "callbacks": [callback.state() for callback in callbacks],
                }
            )
            notify("phase_ended", run=self, phase=name, metrics=metrics)
        return Fit(Network(student.architecture, module), metrics, others)

    def cache(self, training: Training) -> Cache | None:
        """Return the cache of the outputs of frozen networks, or None; entries of earlier phases are evicted first."""
        off = training.cache == "off"
        return None if off else Cache(self.caches, int(training.cache_limit * 1e9), self.tell_once)

    def tell_once(self, line: str) -> None:
        """Print a line unless it was printed for an earlier phase."""
        if line not in self._told:
            say(line)
        self._told.add(line)

    def sub_run(self, name: str, training: Training) -> Run:
        """Return a run inside this one; they share the cache, and its files go when this run is finished."""
        directory = self.directory / "phases" / slug(name)
        directory.mkdir(parents=True, exist_ok=True)
        inner = Run(
            directory,
            data=self._data,
            training=training,
            parent=self.parent,
            entry=dataclasses.replace(self.entry, facts=dict(self.entry.facts)),
            teachers=self.teachers,
            masked=self.masked,
        )
        inner.caches, inner._told, inner._begun = self.caches, self._told, self._begun
        return inner

    def each(self, tasks: Mapping[str, Callable[[Run], Result]]) -> dict[str, Result]:
        """Return what trainings that do not depend on each other return, by name; with ``--ray`` side by side.

        Each task trains the phase, or the sub-run, of its own name, in a run like this one. Whatever else it changes in
        that run is lost: only its files stay, and what it returns.
        """
        if self.workers is not None:
            return self.workers.each(self, tasks)
        return {name: task(self) for name, task in tasks.items()}

    def refine(self, name: str, refiner: Refiner, network: Network) -> Network:
        """Refine with random numbers that depend on the seed and ``name`` alone, so that a resumed run agrees."""
        seed, record = self.training.seed, self.entry.record_repair
        smaller = refined(refiner, network, seed, name, data=self._data, record=record)
        # Inherited weights expect what the weights from which they come expect.
        return converted(smaller, conversion_of(network.module)) if refiner.init == "inherit" else fresh(smaller)

    def reinitialize(self, name: str, network: Network) -> Network:
        """Return a network of the same structure with fresh weights, which depend on the seed and ``name`` alone."""
        with self.seeded(name):
            return fresh(reinitialize(network))

    def seeded(self, name: str) -> AbstractContextManager[None]:
        """Return a context that draws random numbers from the seed and ``name`` alone, so that a resumed run agrees."""
        return seeded(self.training.seed, name)

    def evaluate(self, network: Network, split: str = "val") -> dict[str, Any]:
        """Return a network's metrics on a split in float32, with that of ``--select`` (see `evaluate.evaluate`)."""
        fp32 = dataclasses.replace(self.training, precision="fp32")
        return evaluate_once(network, self.data.split(split), engine_for(fp32, VALIDATION_BATCH, network), fp32.select)

    def scores(self, network: Network) -> list[dict[str, Any]]:
        """Return the metrics that are reported of a result: those of validation and, if there is one, of test.

        No strategy may select by those of the test split.
        """
        if self._data is None:
            return []
        splits = ["val"] if self.data.test is None else ["val", "test"]
        return [self.evaluate(network, split) for split in splits]

    def keep(self, name: str, network: Network, *, taught_by: str, masked: bool | None = None, **about: Any) -> Path:
        """Write a model as ``NAME.pt`` in the run's directory, add its row to the result's table, and return the path.

        ``masked`` says whether its zeros stay; None: as those of the result. ``about`` is more plain data for the row.
        """
        self.add_row(name, network, taught_by=taught_by, **about)
        path = self.directory / f"{slug(name)}.pt"
        kept = self.checkpoint(network, self.scores(network), name, **({} if masked is None else {"masked": masked}))
        decided(lambda: write(path, kept))
        return path

    def add_row(self, name: str, network: Network, *, taught_by: str, **about: Any) -> None:
        """Add the row of a model to the result's table; ``about`` is more plain data for the row."""
        scores = self.scores(network)
        size = {} if is_opaque(network.module) else measure(network)
        self.rows.append(
            {
                "model": name,
                "taught_by": taught_by,
                "split": scores[-1]["split"],
                "error": scores[-1]["error"],
                "val_accuracy": scores[0]["accuracy"],
                "compression": (self.parent.compression(size["parameters"]) if self.parent else 1.0) if size else None,
                **size,
                **about,
            }
        )

    def checkpoint(self, network: Network, metrics: list[dict[str, Any]], note: str = "", **facts: Any) -> Checkpoint:
        """Return a checkpoint of a network of this run, which records the network's own normalisation and classes."""
        facts |= {"kept": note} if note else {}
        entry = {**self.entry.as_data(), "rows": self.rows, "size": measure(network), **facts}
        history = [*(self.parent.history if self.parent else []), entry]
        spec = described(network, self._data.spec) if self._data else None
        return Checkpoint(plain(network), spec, metrics, history)

    def log(self, row: dict[str, Any]) -> None:
        """Append the metrics of an epoch to metrics.jsonl and tell the listeners."""
        if rank() > 0:
            return
        with open(self.logs / LOG, "a", encoding="utf-8") as lines:
            lines.write(dumps(row) + "\n")
        self.entry.clock.keep()
        epoch_ended(epoch_line(row, self.training.epochs))
        notify("epoch_ended", run=self, phase=row["phase"], epoch=row["epoch"], metrics=row)

    def epochs(self, phase: str) -> list[dict[str, Any]]:
        """Return the logged metrics of a phase's epochs, with those before a kill."""
        return [row for row in decided(lambda: read_epochs(self.logs)) if row["phase"] == phase]

    def _rescue(self, name: str, student: Network, loop: Loop) -> str:
        if not loop.state.best_weights:
            return "no epoch was finished"
        module = duplicate(student.module)
        load_exactly(module, loop.state.best_weights)
        module = portable(loop.callbacks, module)
        path = self.directory / f"{slug(name)}-last-good.pt"
        kept = self.checkpoint(Network(student.architecture, module), [loop.state.best], note=name)
        decided(lambda: write(path, kept))
        return f"the weights of epoch {loop.state.best_epoch + 1} are kept in {path}"
