"""Train candidates, each for as long as successive halving lets it, and keep every trial as a checkpoint.

What a trial reached is written down at once. A compression that was killed repeats its decisions from these results,
and trains nothing twice.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdtool.commands.recipes import settled
from kdtool.compression.candidate_files import keep, score
from kdtool.compression.candidates import FLOAT, Candidate, Proposals
from kdtool.compression.costs import Cost, Limits
from kdtool.compression.learners import learner_of
from kdtool.compression.options import Given
from kdtool.compression.schedule import paced
from kdtool.compression.searching import searched
from kdtool.compression.trial_rows import FULL, epoch_seconds, known_row, last_row, logged_seconds, row_of, work_of
from kdtool.data.splits import Data
from kdtool.distillation.distiller import Distiller
from kdtool.distillation.successive_halving import Halving, halve
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import write
from kdtool.models.quantisation.fake import quantiser_of
from kdtool.plugins.method_code import running_method
from kdtool.training.epochs.steps import LossNotFiniteError
from kdtool.training.options import Training
from kdtool.training.run import Run
from kdtool.utils.classification import deciding
from kdtool.utils.files import slug, write_text
from kdtool.utils.formatting import counted
from kdtool.utils.processes import decided
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps

FILE = "trials.json"
"""The file of a run with what each trial reached."""


@dataclass
class Trials:
    """The trainings of a compression in its run."""

    run: Run
    distiller: Distiller
    given: Given
    teacher: Network
    """The teacher as the run sees it."""
    proposals: Proposals
    candidates: Sequence[Candidate]
    part: float = 1
    """The part of the train split of which an epoch of a trial consists."""
    paces: Mapping[str, float] = field(default_factory=dict)
    """The epochs of a candidate's trials for each one that is asked for, by name, see `paced`."""
    longest: int | None = None
    """The epochs that are asked for in the longest trials."""
    done: list[dict[str, Any]] = field(default_factory=list)
    """A row for each training: ``setting``, ``epochs`` (over the whole train split), ``work`` (how many such epochs
    take as long, with their validation), ``full`` (whether it was the last one), ``accuracy`` (that which ``--select``
    names) and ``loss`` on the validation split, ``float_accuracy`` (without the rounding of a file of 8 bits),
    ``rounded`` (whether it learnt to round), ``seconds``, ``scoring_seconds`` (those of them after the training),
    ``checkpoint``, ``cost``, ``note`` and ``within`` (the budget)."""

    def __post_init__(self) -> None:
        path = self.run.directory / FILE
        self.done = decided(lambda: json.loads(path.read_text(encoding="utf-8")) if path.exists() else [])
        self.by_name = {candidate.name: candidate for candidate in self.candidates}
        for row in self.done:
            candidate = self.by_name.get(row["setting"])
            if candidate is not None and row["checkpoint"] is None:
                candidate.note = row["note"]
            elif candidate is not None and candidate.cost is None and row["cost"] is not None:
                candidate.cost, candidate.note = Cost(**row["cost"]), row["note"]

    @property
    def seconds(self) -> float:
        """The time of all trainings, also those before a kill."""
        return sum(float(row["seconds"]) for row in self.done)

    def search(self, lengths: Sequence[int], deadline: float) -> Halving:
        """Train the candidates by successive halving; after ``deadline`` seconds of training none is begun."""

        def train(trials: Sequence[tuple[str, int]]) -> list[dict[str, Any] | None]:
            # A search of a student takes as long as several trials of others, so it is what there may be no time for.
            inner = sorted(trials, key=lambda trial: self.by_name[trial[0]].made_by_training)
            score_of = {trial: self.train(*trial) if self._has_time(*trial, deadline) else None for trial in inner}
            scores = [score_of[trial] for trial in trials]
            cut = [name for (name, _), score in zip(trials, scores, strict=True) if score is None]
            for name in cut:
                if self.last(name) is None:
                    self.by_name[name].note = "no time to train it"
            if cut:
                say(f"compress: --hours left no time to train for {self._length(trials[0][1])}: {', '.join(cut)}")
            return scores

        self.longest = lengths[-1]
        return halve([*self.by_name], lengths, train)

    def _has_time(self, name: str, asked: int, deadline: float) -> bool:
        candidate, epochs = self.by_name[name], paced(asked, self.paces, name)
        if not self.done or not candidate.trains or row_of(self.done, name, epochs * self.part) is not None:
            return True
        seconds = self._work(epochs) * epoch_seconds(self.done, candidate, self.proposals.teacher.macs)
        return self.seconds + seconds < deadline

    def _begun(self, name: str) -> float:
        """Return when a training began, in a run inside of this one, as if it had not been interrupted since."""
        return time.perf_counter() - logged_seconds(self.run.directory / "phases" / slug(name))

    def _trial(self, candidate: Candidate, epochs: int) -> str:
        """Return the name of a trial."""
        return f"trial {candidate.name} {self._length(epochs)}"

    def _length(self, epochs: int) -> str:
        """Return the length of a trial as text."""
        return counted(epochs * self.part, "epoch")

    def _work(self, epochs: int) -> float:
        """Return how many epochs over the whole train split take as long as a trial."""
        return work_of(epochs, self.part, self.run.data)

    def add(self, candidate: Candidate) -> None:
        """Take a candidate that was made after the trials, from one that was tried."""
        if candidate.name not in self.by_name:
            self.candidates = [*self.candidates, candidate]
            self.by_name[candidate.name] = candidate

    def last(self, name: str) -> dict[str, Any] | None:
        """Return the row of a candidate's last training, or None."""
        return last_row(self.done, name)

    def train(self, name: str, asked: int) -> dict[str, Any]:
        """Train a candidate from its first weights, and return its score on the validation images.

        ``asked`` are the epochs of the slowest candidate in the same round.
        """
        candidate, epochs = self.by_name[name], paced(asked, self.paces, name)
        last = self.last(name)
        row = (
            last
            if last and not (candidate.trains and last["checkpoint"])
            else row_of(self.done, name, epochs * self.part)
        )
        if row is None:
            started = self._begun(self._trial(candidate, epochs))
            try:
                network = self._trained(candidate, epochs)
            except (UsageError, LossNotFiniteError) as error:  # it does not suit this network; others may
                row = self._failed(candidate, epochs, started, error)
            else:
                row = self._note(candidate, network, epochs, started, full=False)
        return {key: row[key] for key in ("accuracy", "loss")} if row["within"] else {"accuracy": 0.0, "loss": 1e3}

    def full(self, candidate: Candidate, epochs: int) -> Network:
        """Give a candidate its full training, and return its network; one that is not trained is returned as it is."""
        untold = candidate.precision != FLOAT and known_row(self.done, candidate) is None  # what is lost in 8 bits
        if candidate.network is None or candidate.cost is None or untold:
            self.train(candidate.name, 1)
        if candidate.network is None:
            raise Error(f"{candidate.name} {candidate.note}; nothing else could be trained")
        if not candidate.trains:
            return candidate.network
        name = FULL.format(candidate.name)
        started = self._begun(name)
        learner = learner_of(candidate, known_row(self.done, candidate), self.distiller, self.run)
        run = self.sub_run(name, candidate, epochs)
        with running_method(self.distiller):
            network = self.distiller.distill(run, self.teacher, learner)
        if row_of(self.done, candidate.name, epochs, full=True) is None:
            self._note(candidate, network, epochs, started, full=True)
        return network

    def _note(
        self, candidate: Candidate, network: Network, epochs: int, started: float, *, full: bool
    ) -> dict[str, Any]:
        """Write the checkpoint of a training, write down what it reached, and return that."""
        learnt = time.perf_counter()
        metrics, fits = score(self.run, candidate, network), self._fits(candidate)
        scored = time.perf_counter()
        length = counted(epochs, "epoch") if full else self._length(epochs)
        kind = "in full" if full else length if candidate.trains else "as it is"
        path = self.run.directory / f"{slug(f'{candidate.name} {kind}')}.pt"
        made = self.run.checkpoint(network, [{**metrics, "split": "val"}], note=candidate.name)
        decided(lambda: write(path, made))
        row = {
            "setting": candidate.name,
            "epochs": epochs * (1 if full else self.part) if candidate.trains else 0,
            "work": epochs if full else self._work(epochs),
            "full": full,
            "accuracy": deciding(metrics),
            "loss": metrics["loss"],
            "float_accuracy": metrics.get("float_accuracy"),
            "rounded": quantiser_of(network.module) is not None,
            "seconds": round(time.perf_counter() - started, 2),
            "scoring_seconds": round(scored - learnt, 2),
            "checkpoint": path.name,
            "cost": candidate.cost and candidate.cost.as_data(),
            "note": candidate.note,
            "within": fits,
        }
        row = self._write(row)
        select = self.run.training.select
        notes = ["balanced accuracy"] * (select != "accuracy") + [candidate.note] * bool(candidate.note)
        if row["float_accuracy"] is not None:
            notes.append(f"{row['float_accuracy']:.4f} in float32{', it learnt to round' * row['rounded']}")
        say(
            f"compress: {candidate.name}: {row['accuracy']:.4f} on validation images "
            f"{f'after {length}' if candidate.trains else 'as it is'}"
            f"{f' ({chr(59).join(notes)})' if notes else ''}"
        )
        return row

    def _failed(self, candidate: Candidate, epochs: int, started: float, error: Error) -> dict[str, Any]:
        """Write down that a candidate cannot be trained, and return that.

        Raises:
            Error: it is the only one.
        """
        if len(self.candidates) == 1:
            raise error
        candidate.note = f"failed: {error}"
        row = {
            **{"setting": candidate.name, "epochs": epochs * self.part, "work": self._work(epochs), "full": False},
            **{"accuracy": 0.0, "loss": 1e3},
            **{"seconds": round(time.perf_counter() - started, 2), "checkpoint": None, "cost": None},
            **{"note": candidate.note, "within": False},
        }
        row = self._write(row)
        say(f"compress: {candidate.name}: {candidate.note}")
        return row

    def _write(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write down a row, as the first process has it, and return it."""
        row = decided(lambda: row)
        self.done.append(row)
        decided(lambda: write_text(self.run.directory / FILE, dumps(self.done, indent=1) + "\n"))
        return row

    def _trained(self, candidate: Candidate, epochs: int) -> Network:
        if not candidate.trains:
            assert candidate.network is not None
            return candidate.network
        run = self.sub_run(self._trial(candidate, epochs), candidate, epochs, self.part)
        if candidate.made_by_training and self.last(candidate.name) is None:
            budget, teacher_ms = self.given.budget, self.proposals.teacher.latency_ms
            network = searched(candidate, run, self.teacher, epochs, budget, teacher_ms)
            decided(lambda: keep(self.run, candidate))
            return network
        assert candidate.network is not None
        learner = candidate.network
        if epochs == paced(self.longest or 0, self.paces, candidate.name):
            learner = learner_of(candidate, self.last(candidate.name), self.distiller, self.run)
        return self.distiller.distill(run, self.teacher, learner)

    def _fits(self, candidate: Candidate) -> bool:
        """Return whether a candidate is within the budget; one that a training made may not be."""
        limits: Limits = self.proposals.limits
        fits = limits.allow(candidate.cost)
        if not fits:
            candidate.note = "beyond the budget"
        return fits

    def sub_run(self, name: str, candidate: Candidate, epochs: int, part: float = 1) -> Run:
        """Return a run inside of this one, whose recipe suits the candidate and the number of epochs."""
        training, data = self.settled(candidate, epochs, part)
        directory = self.run.directory / "phases" / slug(name)
        directory.mkdir(parents=True, exist_ok=True)
        inner = Run(
            directory,
            data=data,
            training=training,
            parent=self.run.parent,
            entry=dataclasses.replace(self.run.entry, facts=dict(self.run.entry.facts)),
            teachers=self.run.teachers,
            masked=self.run.masked and candidate.inherits,
        )
        inner.caches = self.run.caches
        return inner

    def settled(self, candidate: Candidate, epochs: int, part: float = 1) -> tuple[Training, Data]:
        """Return the training of a candidate for so many epochs of a part of the images, with the recipe for it.

        So much was cut from one with weights of the teacher that many steps of a high rate suit it, too: of airbench94
        without 65 % of its MACs `standard` made more than `quick` in 1,100 steps, whatever it began with.
        """
        training = dataclasses.replace(self.run.training, epochs=epochs)
        network = candidate.network or self.teacher
        automatic = type(self.distiller).recipe_by_steps
        data, given = self.run.data.part(part), self.given
        kept = candidate.inherits
        return settled(training, given.training, data, given.data, network, automatic=automatic, kept=kept)
