"""Let a method run through without training anything, to see what it will do and cost."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdtool.data.splits import Split
from kdtool.errors import Error, UsageError, first_line
from kdtool.features.segments import Part
from kdtool.models.architecture import Network
from kdtool.training.callback import Callback
from kdtool.training.engine import engine_for
from kdtool.training.epochs.steps import LossNotFiniteError, leaves_one
from kdtool.training.evaluate import VALIDATION_BATCH, outputs
from kdtool.training.foresight.forecast import NOTHING, Cost, Forecast, ForeseenPhase
from kdtool.training.foresight.stopwatch import Timing, bytes_of, now, time_phase
from kdtool.training.memory.passes import first_that_fits
from kdtool.training.objective import Objective
from kdtool.training.options import Training
from kdtool.training.plan import Fit, FitPlan
from kdtool.training.run import Run
from kdtool.training.student import Auxiliary
from kdtool.training.zeros import HoldZeros
from kdtool.utils.files import slug
from kdtool.utils.processes import collected, count, decided, is_lost_process
from kdtool.utils.seeds import forked
from kdtool.utils.tensor_files import write_tensors
from kdtool.utils.verbosity import QUIET, verbosity

Closing = Callable[[Path], object]
"""What is done with the file of a result, such as finding its size when it is compressed."""

SAMPLE_BYTES = 1 << 21


@dataclass
class _Notes:
    """What was seen so far, of a run and of those inside it."""

    phases: list[ForeseenPhase] = field(default_factory=list)
    timings: dict[str, Timing] = field(default_factory=dict)
    """By what decides the cost of a step."""
    answers: dict[str, Cost] = field(default_factory=dict)
    """The cost of an image in a measurement, by the network's structure."""
    measured: dict[tuple[int, str], nn.Module] = field(default_factory=dict)
    """What was measured on which split; the same is measured once."""
    measuring: Cost = NOTHING
    spent: Cost = NOTHING
    """What the timed steps cost; they are no part of the command."""
    kept_bytes: int = 0
    state_bytes: int = 0
    cache_bytes: int = 0
    at_most: bool = False
    at_risk: bool = False
    """Whether what runs now, or failed, may fail in one of several processes alone: reading, computing, writing."""

    @contextlib.contextmanager
    def risky(self) -> Iterator[None]:
        """Mark what the block runs as `at_risk`; the mark stays if it fails."""
        self.at_risk = True
        yield
        self.at_risk = False


class Rehearsal(Run):
    """A run whose phases take a few timed steps; it writes nothing that is kept."""

    notes: _Notes

    @classmethod
    def of(cls, run: Run, directory: Path, notes: _Notes) -> Rehearsal:
        """Return a rehearsal of ``run`` in another directory, which records nothing in the history of ``run``."""
        rehearsal = cls.__new__(cls)
        vars(rehearsal).update(vars(run))
        rehearsal.directory, rehearsal.notes, rehearsal.rows = directory, notes, []
        rehearsal.entry = dataclasses.replace(run.entry, facts=copy.deepcopy(run.entry.facts))
        return rehearsal

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
        """Plan a phase, time a few steps of it, and return the student as they leave it."""
        plan = FitPlan(name, student, teacher, objective, part, auxiliary, self.training)
        module = copy.deepcopy(student.module)
        others = None if auxiliary is None else copy.deepcopy(auxiliary.module)
        epochs, size = self.training.epochs, self.training.batch_size
        images = len(plan.train_split(self.data))
        steps = -(-images // size) - leaves_one(images, size)
        cost, notes = NOTHING, self.notes
        if epochs:
            with notes.risky():
                timing = self._timing(plan, module, [*callbacks, HoldZeros()] if self.masked else callbacks)
            cost = timing.epochs(epochs, steps)
            notes.state_bytes = max(notes.state_bytes, timing.state_bytes)
            notes.cache_bytes = max(notes.cache_bytes, timing.cache_bytes)
        notes.kept_bytes += bytes_of(module.state_dict()) + (0 if others is None else bytes_of(others.state_dict()))
        notes.at_most |= self.training.patience is not None
        notes.phases.append(ForeseenPhase(name, epochs, steps, cost))
        metrics = {**_metrics(self.data.val), "epochs": epochs, "best_epoch": epochs}
        return Fit(Network(student.architecture, module.eval()), metrics, others)

    def _timing(self, plan: FitPlan, module: nn.Module, callbacks: Sequence[Callback]) -> Timing:
        training = {**plan.training.as_data(), "epochs": 0, "seed": 0, "lr": 0.0}
        teacher = "" if plan.teacher is None else repr(plan.teacher.module)
        others = "" if plan.auxiliary is None else repr(plan.auxiliary.module)
        kinds = [type(callback).__name__ for callback in callbacks]
        key = repr((repr(plan.student.module), teacher, others, plan.objective, plan.part, training, kinds))
        if key not in self.notes.timings:
            started = now()
            if plan.training.batch_size.auto and count() == 1:
                self.notes.timings[key] = first_that_fits(plan, self._timed(module, callbacks))[1]
            else:
                self.notes.timings[key] = time_phase(plan, module, self.data, callbacks)
            self.notes.spent += now() - started
        return self.notes.timings[key]

    def _timed(self, module: nn.Module, callbacks: Sequence[Callback]) -> Callable[[FitPlan], Timing]:
        """Return a function that times a phase from the same beginning each time, and leaves ``module`` as it ends."""
        beginning = copy.deepcopy((module.state_dict(), [vars(callback) for callback in callbacks]))

        def timed(plan: FitPlan) -> Timing:
            weights, states = copy.deepcopy(beginning)
            module.load_state_dict(weights)
            for callback, state in zip(callbacks, states, strict=True):
                vars(callback).clear()
                vars(callback).update(state)
            return time_phase(plan, module, self.data, callbacks)

        return timed

    def evaluate(self, network: Network, split: str = "val") -> dict[str, Any]:
        """Count the cost of a measurement."""
        images, notes = self.data.split(split), self.notes
        if (id(network.module), split) not in notes.measured:
            notes.measured[id(network.module), split] = network.module
            with notes.risky():
                notes.measuring += self._answer(network, images) * len(images)
        return _metrics(images)

    def _answer(self, network: Network, split: Split) -> Cost:
        """Return the cost of an image."""
        key = repr(network.module)
        if key not in self.notes.answers:
            began = now()
            training = dataclasses.replace(self.training, precision="fp32")
            engine = engine_for(training, VALIDATION_BATCH, network)
            module, few = engine.place(copy.deepcopy(network.module)), split.first(2 * VALIDATION_BATCH)
            outputs(module, split.first(VALIDATION_BATCH), engine=engine)
            started = now(engine.device)
            outputs(module, few, engine=engine)
            ended = now(engine.device)
            self.notes.answers[key] = (ended - started) * (1 / len(few))
            self.notes.spent += ended - began
        return self.notes.answers[key]

    def keep(self, name: str, network: Network, *, taught_by: str, **about: Any) -> Path:
        """Count a model that is kept."""
        self.add_row(name, network, taught_by=taught_by, **about)
        self.notes.kept_bytes += bytes_of(network.module.state_dict())
        path = self.directory / f"{slug(name)}.pt"
        with self.notes.risky():
            write_tensors(path, network.module.state_dict())
        return path

    def sub_run(self, name: str, training: Training) -> Run:
        """Return a rehearsal inside this one."""
        inner = copy.copy(self)
        inner.training, inner.rows = training, []
        inner.entry = dataclasses.replace(self.entry, facts=dict(self.entry.facts))
        return inner

    def close(self, network: Network, closing: Closing | None) -> None:
        """Write the result, and count what ``closing`` costs with a file of it, by a sample of the weights."""
        path, weights = self.directory / "result.pt", network.module.state_dict()
        write_tensors(path, {"weights": weights})
        if closing is None or not (whole := bytes_of(weights)):
            return
        began, every = now(), max(1, whole // SAMPLE_BYTES)
        write_tensors(path, {name: tensor.flatten()[::every].clone() for name, tensor in weights.items()})
        started = now()
        closing(path)
        ended = now()
        self.notes.measuring += (ended - started) * (whole / path.stat().st_size)
        self.notes.spent += ended - began


def _metrics(split: Split) -> dict[str, Any]:
    """Return metrics as a network could have them."""
    return {"split": split.name, "accuracy": 0.5, "error": 0.5, "loss": 1.0, "images": len(split)}


def rehearse(
    work: Callable[[Run], Network], run: Run, *, strict: bool = False, closing: Closing | None = None
) -> tuple[Forecast, Network | None]:
    """Return what ``work`` will do and cost in ``run``, and the untrained network that it makes, if all was foreseen.

    ``closing`` is what is then done with the file of the result; only its cost is taken.
    A strategy that needs a result of a training before it can go on is foreseen up to there. Several processes take the
    timed steps together; each returns the forecast of all, with the seconds of the first one.

    Raises:
        Error: the command cannot train, if ``strict`` is set and not even a first phase was foreseen.
    """
    notes, network, reason = _Notes(), None, ""
    before = now()
    with tempfile.TemporaryDirectory() as folder, verbosity(QUIET), _unwarned(), forked(_accelerator()):
        try:
            rehearsal = Rehearsal.of(run, Path(folder), notes)
            network = work(rehearsal)
            rehearsal.scores(network)
            with notes.risky():
                rehearsal.close(network, closing)
        except Exception as error:  # what a method does with a network that is not trained is its own affair
            # Of several processes one alone may be out of memory, or miss a file; the others would wait for it. Options
            # that do not fit, and a loss that is not finite, are the same in all.
            alone = isinstance(error, RuntimeError | OSError | MemoryError) or (
                notes.at_risk and not isinstance(error, UsageError | LossNotFiniteError)
            )
            if (strict and not notes.phases) or (alone and count() > 1) or is_lost_process(error):
                raise
            name = notes.phases[-1].name if notes.phases else ""
            reason = f"they depend on the result of {name}" if name else _reason(error)
    others = now() - before - notes.spent
    trained = sum((phase.cost for phase in notes.phases), start=NOTHING)
    memory, cost = peak_memory(), trained + notes.measuring + others
    if count() > 1:
        memory, cost = sum(collected(memory)), Cost(decided(lambda: cost.seconds), sum(collected(cost.cpu_seconds)))
    result = 0 if network is None else bytes_of(network.module.state_dict())
    return Forecast(
        phases=notes.phases,
        cost=cost,
        memory_bytes=memory,
        gpu_bytes=torch.cuda.max_memory_allocated() if _accelerator() is not None else 0,
        disk_bytes=result + notes.kept_bytes + notes.state_bytes + notes.cache_bytes,
        at_most=notes.at_most,
        timed_steps=sum(timing.steps for timing in notes.timings.values()),
        reason=reason,
        processes=count(),
    ), network


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """Keep warnings back: what a method says of a network that is not trained is not true of the result."""
    logger = logging.getLogger("kdtool")

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    logger.addFilter(is_error)
    try:
        yield
    finally:
        logger.removeFilter(is_error)


def _reason(error: Exception) -> str:
    return first_line(error) if isinstance(error, Error) else type(error).__name__


def _accelerator() -> torch.device | None:
    """Return the GPU in use, or None."""
    in_use = torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch.device("cuda", torch.cuda.current_device()) if in_use else None


def peak_memory() -> int:
    """Return the most memory that this process has taken, in bytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
