"""A durable run: one command at work in a directory, so that it can be killed and resumed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdtool.data.splits import Data
from kdtool.errors import UsageError
from kdtool.features.segments import Part
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, fingerprint, write
from kdtool.models.reinit import reinitialize
from kdtool.models.size import measure
from kdtool.models.weights import load_exactly
from kdtool.plugins.entry_points import manager
from kdtool.surgery.refiner import refined
from kdtool.training.callback import Guide
from kdtool.training.engine import engine_for
from kdtool.training.evaluate import VALIDATION_BATCH, evaluate
from kdtool.training.loop import Loop, LossNotFiniteError
from kdtool.training.options import Training
from kdtool.training.output_cache import Cache
from kdtool.training.phase import LOG, Phase, read_epochs
from kdtool.training.plan import FitPlan
from kdtool.training.student import Auxiliary
from kdtool.training.zeros import holding_zeros
from kdtool.utils.files import slug
from kdtool.utils.progress import say
from kdtool.utils.seeds import derive

if TYPE_CHECKING:
    from kdtool.surgery.refiner import Refiner
    from kdtool.training.objective import Objective


@dataclass
class Fit:
    """What a phase came to: the trained network and its validation metrics."""

    network: Network
    metrics: dict[str, Any]
    early: dict[str, Tensor] = field(default_factory=dict)
    """The weights after the epoch whose weights were to be kept."""
    auxiliary: nn.Module | None = None
    """What learnt in the same steps, as it was in the student's best epoch."""


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
        teachers: Sequence[Checkpoint] = (),
        masked: bool = False,
    ) -> None:
        """Work in ``directory``, which exists; ``entry`` becomes the last line of the history, ``teachers`` are all
        that were given. ``masked`` says that what is worked on was pruned by masks: its zeros stay zero."""
        self.directory, self.training, self.teachers = directory, training, teachers
        self._data = data
        self.caches = directory / "cache"
        self.parent, self.entry = parent, entry
        self.rows: list[dict[str, Any]] = []
        self._scores: dict[str, list[dict[str, Any]]] = {}
        self._told: set[str] = set()
        self.masked = False
        if masked:
            self.keep_zeros()

    def keep_zeros(self) -> None:
        """Hold the zeros that a network's convolutions and linear layers have when a phase begins, from now on, and in
        later commands that work on this one's checkpoint."""
        self.masked = self.entry["masked"] = True

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
        objective: Objective | None = None,
        part: Part | None = None,
        constraint: Callable[[nn.Module], None] | None = None,
        penalty: Callable[[nn.Module], Tensor] | None = None,
        keep_epoch: int | None = None,
        auxiliary: Auxiliary | None = None,
        guide: Guide | None = None,
        **changes: Any,
    ) -> Fit:
        """Train a copy of ``student`` and return it with the weights that validated best.

        A phase that was finished before a kill returns from disk; one that was cut goes on from its last saved
        epoch. ``objective`` is the distiller whose loss is used (none: cross-entropy), ``part`` what of the student
        learns (none: all), ``constraint`` is called with the module after every step, ``penalty`` returns what of the
        module itself is added to the loss, ``keep_epoch`` is an epoch whose weights are returned as well, a copy of
        ``beside`` learns in the same steps, ``guide`` works beside the optimiser (what it does has to follow from
        ``objective``), ``changes`` replace training options for this phase.

        Raises:
            Error: the loss is not finite (the last good weights are kept), or the phase is not the one that was cut.
        """
        training = dataclasses.replace(self.training, **changes)
        lesson = FitPlan(name, student, teacher, objective, part, training, auxiliary)
        phase = Phase(self.directory, name, lesson.key, self.log)
        module = copy.deepcopy(student.module)
        done = phase.load_result()
        if done is not None:
            load_exactly(module, done["weights"])
            others = copy.deepcopy(auxiliary.module) if auxiliary is not None else None
            if others is not None:
                load_exactly(others.eval(), done["auxiliary"])
            trained = Network(student.architecture, module.eval())
            return Fit(trained, done["metrics"], done.get("early", {}), others)
        engine = engine_for(training, training.batch_size, *lesson.networks)
        train, val = lesson.feeds(self.data, engine, self.cache(training))
        pupil = lesson.pupil(module)
        loop = Loop(
            pupil,
            name=name,
            train=train,
            val=val,
            training=training,
            engine=engine,
            loss=(lambda step: step.cross_entropy()) if objective is None else objective.loss,
            validates="accuracy" if objective is None else objective.validates,
            store=phase,
            constraint=holding_zeros(module, constraint) if self.masked else constraint,
            penalty=penalty,
            keep_epoch=keep_epoch,
            guide=guide,
        )
        try:
            metrics = loop.run()
        except LossNotFiniteError as error:
            raise LossNotFiniteError(f"{error}; {self._rescue(name, student, loop)}") from error
        early, others = loop.state.early_weights, pupil.auxiliary.module if auxiliary is not None else None
        more = {"early": early} if early else {}
        more |= {} if others is None else {"auxiliary": others.state_dict()}
        phase.save_result({"weights": module.state_dict(), "metrics": metrics, **more})
        manager().hook.phase_ended(run=self, phase=name, metrics=metrics)
        return Fit(Network(student.architecture, module), metrics, early, others)

    def cache(self, training: Training) -> Cache | None:
        """Return where frozen networks keep what they make of each image; what earlier phases kept there gives way."""
        if training.cache == "off":
            return None
        return Cache(self.caches, int(training.cache_limit * 1e9), self._tell_once)

    def _tell_once(self, line: str) -> None:
        """Say what holds for all phases alike in the first of them."""
        if line not in self._told:
            say(line)
        self._told.add(line)

    def sub_run(self, name: str, training: Training) -> Run:
        """Return a run inside of this one, whose results go with its phases when it is finished; what frozen networks
        make of each image is shared."""
        directory = self.directory / "phases" / slug(name)
        directory.mkdir(parents=True, exist_ok=True)
        trial = Run(
            directory,
            data=self._data,
            training=training,
            parent=self.parent,
            entry={**self.entry},
            teachers=self.teachers,
            masked=self.masked,
        )
        trial.caches, trial._told = self.caches, self._told
        return trial

    def refine(self, name: str, refiner: Refiner, network: Network) -> Network:
        """Refine with random numbers that depend on the seed and ``name`` alone, so that a resumed run agrees."""
        return refined(refiner, network, self.training.seed, name)

    def reinitialize(self, name: str, network: Network) -> Network:
        """Return a network of the same structure with fresh weights, which depend on the seed and ``name`` alone."""
        with self.seeded(name):
            return reinitialize(network)

    @contextlib.contextmanager
    def seeded(self, name: str) -> Iterator[None]:
        """Draw random numbers in the block that depend on the seed and ``name`` alone, so that a resumed run agrees."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.training.seed, name))
            yield

    def evaluate(self, network: Network, split: str = "val") -> dict[str, Any]:
        """Return the metrics of a network on a split, in float32 (see `kdtool.training.evaluate.evaluate`)."""
        engine = engine_for(dataclasses.replace(self.training, precision="fp32"), VALIDATION_BATCH, network)
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
        self.add_row(name, network, taught_by=taught_by, **about)
        path = self.directory / f"{slug(name)}.pt"
        write(path, self.checkpoint(network, self.scores(network), note=name))
        return path

    def add_row(self, name: str, network: Network, *, taught_by: str, **about: Any) -> None:
        """Add the line of a model to the result's table; ``about`` is more plain data for it."""
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

    def checkpoint(self, network: Network, metrics: list[dict[str, Any]], note: str = "") -> Checkpoint:
        """Return a checkpoint of a network that this run made."""
        entry = {**self.entry, "rows": self.rows, "size": measure(network)}
        if note:
            entry["kept"] = note
        history = [*(self.parent.history if self.parent else []), entry]
        return Checkpoint(network, self._data.spec if self._data else None, metrics, history)

    def log(self, row: dict[str, Any]) -> None:
        """Append the metrics of an epoch to metrics.jsonl and tell the listeners."""
        with open(self.directory / LOG, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        manager().hook.epoch_ended(run=self, phase=row["phase"], epoch=row["epoch"], metrics=row)

    def epochs(self, phase: str) -> list[dict[str, Any]]:
        """Return what was logged of a phase's epochs, also of those before a kill."""
        return [row for row in read_epochs(self.directory) if row["phase"] == phase]

    def _rescue(self, name: str, student: Network, loop: Loop) -> str:
        if not loop.state.best_weights:
            return "no epoch was finished"
        module = copy.deepcopy(student.module)
        load_exactly(module, loop.state.best_weights)
        if loop.guide is not None:
            module = loop.guide.result(module)
        path = self.directory / f"{slug(name)}-last-good.pt"
        write(path, self.checkpoint(Network(student.architecture, module), [loop.state.best], note=name))
        return f"the weights of epoch {loop.state.best_epoch + 1} are kept in {path}"


@contextlib.contextmanager
def timed(entry: dict[str, Any]) -> Iterator[None]:
    """Add the seconds that the block took to a history entry, and those that this process computed in it."""
    started, used = time.perf_counter(), time.process_time()
    yield
    entry["seconds"] = round(time.perf_counter() - started, 1)
    entry["cpu_seconds"] = round(time.process_time() - used, 1)
