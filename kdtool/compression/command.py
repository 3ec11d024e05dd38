"""What `kdtool compress` does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdtool.commands.inputs import as_teachers, data_for, load
from kdtool.commands.outputs import entry_of, finish, named_after, running, target_of
from kdtool.commands.recipes import with_recipe
from kdtool.compression import frontier
from kdtool.compression.candidates import FLOAT, Candidate
from kdtool.compression.costs import NEAR, scratch
from kdtool.compression.final import as_exported, excess, file_of, write_quantised
from kdtool.compression.finalists import finalist
from kdtool.compression.options import BudgetOptions, Given
from kdtool.compression.planning import Planned, foreseen, planned
from kdtool.compression.record import RESULTS, data_of, limits_as_data
from kdtool.compression.schedule import MOST_EPOCHS, SPARE
from kdtool.compression.trial_rows import epoch_seconds
from kdtool.compression.trials import Trials
from kdtool.data.options import DataOptions
from kdtool.data.splits import Data
from kdtool.distillation.distiller import Distiller
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.plugins.options import split
from kdtool.plugins.registry import method_class
from kdtool.training.history_entry import HistoryEntry
from kdtool.training.options import Training
from kdtool.training.run import Run
from kdtool.utils.files import write_text
from kdtool.utils.formatting import counted
from kdtool.utils.processes import decided
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps


class BudgetNotMetError(Error):
    """Nothing met the whole budget; the nearest is kept in ``checkpoint``."""

    def __init__(self, message: str, checkpoint: Checkpoint) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


def compress(
    teacher: str | Path | Checkpoint,
    method: str = "kd",
    *,
    output: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    track: str | None = None,
    **options: Any,
) -> Checkpoint:
    """Find the most accurate student within a budget, train it, write its checkpoint and return it.

    Installed refiners, pruners and methods that make their student propose networks that just meet the budget, in
    float32 and in 8 bits, measured before anything is trained. ``method`` trains them for a short time, the better ones
    longer (successive halving, by validation), and the best one in full. The test split is used once, for that one.
    ``options`` are those of the method, `BudgetOptions`, `DataOptions` (where they differ from the teacher's) and
    `Training`. A student in 8 bits has its ONNX file beside the checkpoint. The run's directory holds every trial,
    ``results.json`` and the frontier (``frontier-*.svg``). With ``dry_run`` candidates are measured, it is said what
    their training would take, and the untrained one that would be trained first is returned; nothing is written.
    ``track`` is as in `distill`.

    Raises:
        UsageError: there is no budget, the teacher meets it already, or the method cannot train a given student.
        BudgetNotMetError: the student loses more than ``max_drop``, or its file is beyond the budget; it is written.
        Error: nothing can meet the budget; nothing was trained.
    """
    parent = load(teacher)
    cls = method_class("distillers", method)
    check_distiller(method, cls)
    own, of_budget, data_options, training_options = split(options, cls, BudgetOptions, DataOptions, Training)
    given, given_data = training_options, data_options
    training_options, data_options = with_recipe(given, given_data)
    distiller, budget, training = cls(**own), BudgetOptions(**of_budget), Training(**training_options)
    if training.epochs < 1:
        raise UsageError("--epochs 0: compress trains its candidates; give 1 or more")
    target = target_of(output, named_after(parent, "compressed"), force=force, resume=resume)
    data = data_for(parent, data_options)
    check_validation(budget, data)
    teachers = as_teachers([parent], data.spec, data_options)
    entry = entry_of("compress", method, parent, options, target, distiller, training, data)
    entry.record(budget={**budget.as_data(), "met": None})
    known = Given(given, given_data, budget)
    if dry_run:
        return _rehearsed(distiller, known, parent, entry, target, data=data, training=training, teachers=teachers)
    about: dict[str, Any] = {"teachers": teachers, "masked": parent.masked, "track": track}
    with running(target, entry, data, training, parent, force=force, resume=resume, **about) as run:
        if isinstance(run, Checkpoint):
            result = run
        else:
            result = _Work(run, distiller, known, parent, run.teachers[0].network).done(target)
    return _checked(result)


def _rehearsed(
    distiller: Distiller, given: Given, parent: Checkpoint, entry: HistoryEntry, target: Path, **about: Any
) -> Checkpoint:
    """Measure the candidates and return the first one, untrained; what would be trained is said."""
    with scratch() as folder:
        run = Run(folder, parent=parent, entry=entry, **about)
        plan = planned(run, distiller, given, parent, run.teachers[0].network, dry_run=True)
        with foreseen(plan, target):
            network = plan.chosen[0].network or parent.network
    run.record(forecast=plan.forecast and plan.forecast.as_data())
    return Checkpoint(network, run.data.spec, [], [*parent.history, entry.as_data()])


def check_distiller(method: str, cls: type[Distiller]) -> None:
    """Check that a method can train a student that it is given.

    Raises:
        Error: it makes its student itself, or learns from several teachers.
    """
    if cls.makes_student or cls.several_teachers:
        why = "makes its student itself" if cls.makes_student else "learns from several teachers"
        raise Error(f"--method {method}: {why}; compress needs one that trains a given student, such as kd")


def check_validation(budget: BudgetOptions, data: Data) -> None:
    """Raise a UsageError if there are no images to choose by."""
    if len(data.val) == 0:
        flag = "--max-drop is measured on" if budget.max_drop else "compress chooses by"
        raise UsageError(f"{flag} validation images, and {data.spec.name} has none; hold some out with --validation")


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    """Return a result, or raise the error of one that does not meet the whole budget."""
    about = checkpoint.history[-1].get("budget", {}) if checkpoint.history else {}
    if about.get("met") is False:
        raise BudgetNotMetError(f"{about['missed']}; the nearest is kept in {checkpoint.path}", checkpoint)
    return checkpoint


@dataclass
class _Work:
    """A compression at work in its run."""

    run: Run
    distiller: Distiller
    given: Given
    parent: Checkpoint
    teacher: Network

    def done(self, target: Path) -> Checkpoint:
        """Do everything, and return the checkpoint of the winner."""
        plan = planned(self.run, self.distiller, self.given, self.parent, self.teacher)
        with self.run.entry.timed(), foreseen(plan, target):
            winner, network = self._winner(plan)
        return self._finish(winner, network, target)

    def _winner(self, plan: Planned) -> tuple[Candidate, Network]:
        """Return the candidate that validates best, with its network after the full training."""
        self.proposals, self.schedule = plan.proposals, plan.schedule
        schedule = self.schedule
        self.trials = Trials(
            self.run, self.distiller, self.given, self.teacher, plan.proposals, plan.chosen, schedule.part
        )
        if schedule.lengths:
            best = self.trials.search(schedule.lengths, schedule.deadline or float("inf")).best
            ranked = self.trials.ranked(best)
            candidate = finalist(self.trials, ranked)
            trained = [one for one in ranked if one.trains]
            second = finalist(self.trials, trained) if trained and not candidate.trains else None
        else:
            candidate, second = self.trials.by_name[schedule.names[0]], None
        networks = {one.name: self._full(one) for one in (candidate, second) if one is not None}
        rows = [row for name in networks if (row := self.trials.last(name)) is not None]
        best = max(rows, key=lambda row: (row["within"], row["accuracy"], -row["loss"]))["setting"]
        candidate = self.trials.by_name[best]
        training, data = self.trials.settled(candidate, self._final_epochs(candidate))
        self.run.entry.training, self.run.entry.data = training.as_data(), data.spec.as_data()
        return candidate, networks[best]

    def _full(self, candidate: Candidate) -> Network:
        """Return the network of a candidate after its full training."""
        epochs = self._final_epochs(candidate)
        if candidate.trains:
            say(f"compress: {candidate.name} goes on: {counted(epochs, 'epoch')} in full")
        return self.trials.full(candidate, epochs)

    def _final_epochs(self, candidate: Candidate) -> int:
        """Return the epochs of the full training; with --hours those that fit, which are written down."""
        if not candidate.trains:
            return 0
        return decided(lambda: self._decided_epochs(candidate))

    def _decided_epochs(self, candidate: Candidate) -> int:
        path = self.run.directory / "final.json"
        if path.exists():
            return int(json.loads(path.read_text(encoding="utf-8"))["epochs"])
        epochs, hours = self.schedule.epochs, self.given.budget.hours
        each = epoch_seconds(self.trials.done, candidate)
        if hours is not None and each:
            left = SPARE * (hours * 3600 - self.proposals.seconds) - self.trials.seconds
            # It was planned for the slowest candidate; a faster one gets the time that this leaves.
            most = epochs if "epochs" in self.given.training else MOST_EPOCHS
            epochs = max(min(most, int(left / each)), 1)
        write_text(path, dumps({"epochs": epochs}) + "\n")
        return epochs

    def _finish(self, winner: Candidate, network: Network, target: Path) -> Checkpoint:
        """Measure the winner, write it with the frontier, and return its checkpoint."""
        run, budget, limits = self.run, self.given.budget, self.proposals.limits
        teacher = run.evaluate(self.teacher)["accuracy"]
        last = self.trials.last(winner.name)
        assert last is not None
        untold = run.checkpoint(network, run.scores(network))
        costs = decided(
            lambda: (
                as_exported(winner, network, self.teacher, budget, limits)
                or write_quantised(winner, untold, self.parent, target, budget, limits)
            )
        )
        # Of a winner in 8 bits the file that was written counts, which may be quantised in a better way than its trial.
        accuracy = float(((costs or {}).get("quantised") or {}).get("val_accuracy", last["accuracy"]))
        table = frontier.rows(self.proposals, self.trials.candidates, self.trials.done, teacher)
        row = next(row for row in table if row["model"] == winner.name)
        row |= {"note": "winner", "val_accuracy": accuracy}
        table = frontier.settle(table)
        missed = self._missed(winner, excess(costs, limits) if costs else 0.0, accuracy, teacher)
        about = {
            **budget.as_data(),
            "met": not missed,
            "missed": missed,
            "device": self.proposals.device,
            "measured": costs and {name: costs.get(name) for name in ("onnx", "file_bytes", "latency", "accuracy")},
        }
        run.record(budget=about, candidate=data_of(winner))
        run.rows = table
        checkpoint = finish(run, network, target)
        results: dict[str, Any] = {
            "checkpoint": str(target),
            "winner": winner.name,
            "quantised_file": None if winner.precision == FLOAT else str(file_of(target)),
            **about,
            "limits": limits_as_data(limits),
            "expected_seconds": self.schedule.seconds,
            "seconds": self.proposals.seconds + self.trials.seconds,
            "rows": table,
            "trials": self.trials.done,
            "refused": self.proposals.refused,
            "metrics": checkpoint.metrics,
            "teacher_metrics": run.scores(self.teacher),
        }
        files = {RESULTS: dumps(results, indent=1)}
        for cost, svg in frontier.charts(table, self.proposals, winner.name).items():
            files[f"frontier-{cost}.svg"] = svg
        for name, text in files.items():
            decided(lambda name=name, text=text: write_text(run.directory / name, text + "\n"))  # type: ignore[misc]
        return checkpoint

    def _missed(self, winner: Candidate, measured: float, accuracy: float, teacher: float) -> str:
        """Return what of the budget the winner does not meet, as text; empty if it meets all of it.

        ``measured`` are the costs of its exported file over their limits.
        """
        budget = self.given.budget
        load = max(measured / NEAR, self.proposals.limits.load(winner.cost) if winner.cost else 0.0)
        parts = [f"{max(load, measured):.2f} times the cost"] if load > 1 else []
        if budget.max_drop is not None and teacher - accuracy > budget.max_drop.fraction + 1e-12:
            parts.append(
                f"{teacher - accuracy:.2%} less accurate than the teacher on validation images ({accuracy:.2%}), where "
                f"--max-drop allows {budget.max_drop}"
            )
        typed = " ".join(f"{flag} {text}" for flag, text in budget.texts.items())
        return f"nothing met {typed}: nearest was {winner.name}, {' and '.join(parts)}" if parts else ""
