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
from kdtool.compression.costs import scratch
from kdtool.compression.final import as_exported, excess, file_of, write_quantised
from kdtool.compression.options import BudgetOptions
from kdtool.compression.proposals import Proposals, propose, say_proposals
from kdtool.compression.record import RESULTS, as_data, data_of, limits_as_data, restored
from kdtool.compression.schedule import Schedule, plan, time_epochs
from kdtool.compression.trials import Given, Trials, check_distiller, keep, kept
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
from kdtool.utils.processes import launched
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps

PROPOSALS = "proposals.json"
"""The file of the run with what was measured, and who trains how long."""

NEAR = 1.05
"""Up to this factor a file counts as within the budget: two measurements differ by as much."""


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
    if launched() > 1:
        raise UsageError("compress runs in one process; start it without torchrun or another launcher")
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
        return _rehearsed(distiller, known, parent, entry, data=data, training=training, teachers=teachers)
    with running(
        target, entry, data, training, parent, force=force, resume=resume, teachers=teachers, masked=parent.masked
    ) as run:
        if isinstance(run, Checkpoint):
            result = run
        else:
            result = _Work(run, distiller, known, parent, run.teachers[0].network).done(target)
    return _checked(result)


def _rehearsed(distiller: Distiller, given: Given, parent: Checkpoint, entry: HistoryEntry, **about: Any) -> Checkpoint:
    """Measure the candidates and return the first one, untrained; what would be trained is said."""
    with scratch() as folder:
        run = Run(folder, parent=parent, entry=entry, **about)
        work = _Work(run, distiller, given, parent, run.teachers[0].network)
        _, chosen, schedule = work.planned()
    run.record(forecast={"seconds": schedule.seconds})
    network = chosen[0].network or parent.network
    return Checkpoint(network, run.data.spec, [], [*parent.history, entry.as_data()])


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
        with self.run.entry.timed():
            winner, network = self._winner()
        return self._finish(winner, network, target)

    def _winner(self) -> tuple[Candidate, Network]:
        """Propose, try, and return the candidate that validates best, with its network after the full training."""
        proposals, chosen, schedule = self.planned()
        self.proposals, self.schedule = proposals, schedule
        self.trials = Trials(self.run, self.distiller, self.given, self.teacher, proposals, chosen)
        if schedule.lengths:
            best = self.trials.search(schedule.lengths, schedule.deadline or float("inf")).best
        else:
            best = schedule.names[0]
        candidate = self.trials.by_name[best]
        second = None if candidate.trains else self.trials.best_trained()
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
            say(f"compress: {candidate.name} goes on: {epochs} epochs in full")
        return self.trials.full(candidate, epochs)

    def _final_epochs(self, candidate: Candidate) -> int:
        """Return the epochs of the full training; with --hours those that fit, which are written down."""
        if not candidate.trains:
            return 0
        path = self.run.directory / "final.json"
        if path.exists():
            return int(json.loads(path.read_text(encoding="utf-8"))["epochs"])
        epochs, hours = self.schedule.epochs, self.given.budget.hours
        row = self.trials.last(candidate.name)
        if hours is not None and row is not None:
            each = row["seconds"] / max(row["epochs"], 1)
            left = hours * 3600 - self.proposals.seconds - self.trials.seconds
            epochs = max(min(epochs, int(left / each)), 1)
        write_text(path, dumps({"epochs": epochs}) + "\n")
        return epochs

    def planned(self) -> tuple[Proposals, list[Candidate], Schedule]:
        """Return what is proposed and the schedule: those of an earlier process if it came so far."""
        path = self.run.directory / PROPOSALS
        if path.exists():
            about = json.loads(path.read_text(encoding="utf-8"))
            return restored(about, lambda one: kept(self.run, one.name) if one.trains else self.parent.network)
        budget = self.given.budget
        with scratch() as folder:
            proposals = propose(self.run, self.parent.network, budget, folder)
        chosen = proposals.chosen(budget.trials)
        say_proposals(proposals, chosen)
        times = time_epochs(chosen, self.teacher, self.run.training, self.run.data)
        epochs_given = "epochs" in self.given.training
        schedule = plan(
            chosen, times, self.run.training, hours=budget.hours, spent=proposals.seconds, given=epochs_given
        )
        for candidate in chosen[len(schedule.names) :]:
            candidate.note = "no time to train it"
        chosen = chosen[: len(schedule.names)]
        for candidate in chosen:
            keep(self.run, candidate)
        _say_schedule(schedule)
        write_text(path, dumps(as_data(proposals, schedule), indent=1) + "\n")
        return proposals, chosen, schedule

    def _finish(self, winner: Candidate, network: Network, target: Path) -> Checkpoint:
        """Measure the winner, write it with the frontier, and return its checkpoint."""
        run, budget, limits = self.run, self.given.budget, self.proposals.limits
        teacher = run.evaluate(self.teacher)["accuracy"]
        last = self.trials.last(winner.name)
        assert last is not None
        accuracy = float(last["accuracy"])
        table = frontier.rows(self.proposals, self.trials.candidates, self.trials.done, teacher)
        row = next(row for row in table if row["model"] == winner.name)
        row["note"] = "winner"
        table = frontier.settle(table)
        untold = run.checkpoint(network, run.scores(network))
        costs = as_exported(winner, network, self.teacher, budget) or write_quantised(
            winner, untold, self.parent, target, budget, limits
        )
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
        write_text(run.directory / RESULTS, dumps(results, indent=1) + "\n")
        for cost, svg in frontier.charts(table, self.proposals, winner.name).items():
            write_text(run.directory / f"frontier-{cost}.svg", svg + "\n")
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


def _say_schedule(schedule: Schedule) -> None:
    lengths = ", ".join(map(str, schedule.lengths))
    first = (
        f"{len(schedule.names)} candidates train for {lengths} epochs, the better half of them longer; "
        if lengths
        else ""
    )
    say(
        f"compress: {first}the best trains for {schedule.epochs} epochs; by the times of a few steps all takes about "
        f"{_duration(schedule.seconds)}"
    )


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
