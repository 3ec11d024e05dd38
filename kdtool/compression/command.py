"""What `kdtool compress` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdtool.commands.inputs import as_teachers, data_for, load
from kdtool.commands.outputs import entry_of, named_after, running, target_of
from kdtool.commands.processes import check_step
from kdtool.commands.recipes import with_recipe
from kdtool.compression.candidates import FLOAT, Candidate
from kdtool.compression.costs import NEAR, scratch
from kdtool.compression.exported_winner import file_of
from kdtool.compression.measuring_again import finalist, measured_load, ranked
from kdtool.compression.options import BudgetOptions, Given, check_epochs, refused
from kdtool.compression.planning import Planned, foreseen, planned
from kdtool.compression.schedule import FOR_FRESH, MOST_EPOCHS, SPARE, epochs_within, training_seconds
from kdtool.compression.trial_rows import epoch_seconds
from kdtool.compression.trials import Trials
from kdtool.compression.winner import Finish, Winner
from kdtool.data.options import DataOptions
from kdtool.data.splits import Data
from kdtool.distillation.distiller import Distiller
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.plugins.calls import public
from kdtool.plugins.places import split
from kdtool.plugins.registry import method_class
from kdtool.training.history_entry import HistoryEntry
from kdtool.training.options import Training
from kdtool.training.run import Run
from kdtool.utils.files import noted, write_text
from kdtool.utils.formatting import counted
from kdtool.utils.processes import decided, together
from kdtool.utils.progress import phases_ahead, say
from kdtool.utils.strict_json import dumps


class BudgetNotMetError(Error):
    """Nothing met the whole budget; the nearest is kept in ``checkpoint``."""

    def __init__(self, message: str, checkpoint: Checkpoint) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


@public
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
    if why := refused(cls):
        raise UsageError(f"--method {method}: {why}")
    own, of_budget, data_options, training_options = split(options, cls, BudgetOptions, DataOptions, Training)
    given, given_data = training_options, data_options
    training_options, data_options = with_recipe(given, given_data)
    distiller, budget, training = cls(**own), BudgetOptions(**of_budget), Training(**training_options)
    check_epochs(training.epochs)
    target = target_of(output, named_after(parent, "compressed"), force=force, resume=resume, endings=budget.endings)
    data = data_for(parent, data_options)
    check_validation(budget, data)
    teachers = as_teachers([parent], data.spec, data_options)
    entry = entry_of("compress", method, parent, options, target, distiller, training, data)
    entry.record(budget={**budget.as_data(), "met": None})
    known = Given(given, given_data, budget)
    if dry_run:
        return _rehearsed(distiller, known, parent, entry, target, data=data, training=training, teachers=teachers)
    with running(
        target, entry, data, training, parent,
        force=force, resume=resume, masked=parent.masked, teachers=teachers, track=track,
    ) as run:  # fmt: skip
        if isinstance(run, Checkpoint):
            result = run
            say_gone(result)
        else:
            result = _Work(run, distiller, known, parent, run.teachers[0].network).done(target)
    return _checked(result)


def _rehearsed(
    distiller: Distiller, given: Given, parent: Checkpoint, entry: HistoryEntry, target: Path, **about: Any
) -> Checkpoint:
    """Measure the candidates and return the first one, untrained; what would be trained is said."""
    with scratch() as folder, together(about["training"].device):
        check_step(about["training"])
        run = Run(folder, parent=parent, entry=entry, **about)
        plan = planned(run, distiller, given, parent, run.teachers[0].network, dry_run=True)
        with foreseen(plan, target):
            network = plan.chosen[0].network or parent.network
    run.record(forecast=plan.forecast and plan.forecast.as_data())
    return Checkpoint(network, run.data.spec, [], [*parent.history, entry.as_data()])


def check_validation(budget: BudgetOptions, data: Data) -> None:
    """Raise a UsageError if there are no images to choose by."""
    if len(data.val) == 0:
        flag = "--max-drop is measured on" if budget.max_drop else "compress chooses by"
        raise UsageError(f"{flag} validation images, and {data.spec.name} has none; hold some out with --validation")


def say_gone(result: Checkpoint) -> None:
    """Say how to write the file of 8 bits again, if it was removed since a compression wrote it."""
    made = result.history[-1].get("candidate") if result.history else None
    if made and made["precision"] != FLOAT and result.path is not None and not file_of(result.path).exists():
        say(f"{file_of(result.path)} is gone; kdtool export {result.path} --int8 writes it again")


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
    fresh: Candidate | None = None
    """The candidate with fresh weights that is trained in full besides the best one."""

    def done(self, target: Path) -> Checkpoint:
        """Do everything, and return the checkpoint of the winner."""
        plan = planned(self.run, self.distiller, self.given, self.parent, self.teacher)
        with self.run.entry.timed(), foreseen(plan, target):
            winners = self._winners(plan)
        return Finish(self.run, self.given, self.parent, self.teacher, self.schedule, self.trials).written(
            winners, target
        )

    def _winners(self, plan: Planned) -> list[Winner]:
        """Return the candidates that had the full training, the one that validates best first."""
        self.proposals, self.schedule = plan.proposals, plan.schedule
        schedule = self.schedule
        about = (self.run, self.distiller, self.given, self.teacher, plan.proposals, plan.chosen)
        self.trials = Trials(*about, part=schedule.part, paces=schedule.paces)
        if schedule.lengths:
            in_order = ranked(self.trials, self.trials.search(schedule.lengths, schedule.deadline or float("inf")))
            candidate = finalist(self.trials, in_order)
            trained = [tried for tried in in_order if tried.trains]
            second = finalist(self.trials, trained) if trained and not candidate.trains else None
        else:
            candidate, second = self.trials.by_name[schedule.names[0]], None
        self.fresh = self._fresh()
        chosen = {choice.name: choice for choice in (candidate, second, self.fresh) if choice is not None}
        networks = {name: self._full(choice, plan) for name, choice in chosen.items()}
        rows = [row for name in networks if (row := self.trials.last(name)) is not None]
        rows.sort(key=lambda row: (row["within"], row["accuracy"], -row["loss"]), reverse=True)
        best_first = [(self.trials.by_name[row["setting"]], row["accuracy"]) for row in rows]
        return [
            Winner(winner, networks[winner.name], self._final_epochs(winner), accuracy)
            for winner, accuracy in best_first
        ]

    def _fresh(self) -> Candidate | None:
        """Return the candidate with fresh weights that is trained in full too, if its trial showed that it can be."""
        candidate = self.trials.by_name.get(self.schedule.fresh)
        row = candidate and self.trials.last(candidate.name)
        if candidate is None or not row or not row["within"]:
            return None
        timed = self.proposals.limits.timed
        return candidate if not timed or measured_load(self.trials, candidate) <= NEAR else None

    def _is_before_fresh(self, candidate: Candidate) -> bool:
        """Return whether the fresh candidate is trained in full after this one."""
        return self.fresh is not None and candidate.name != self.fresh.name

    def _full(self, candidate: Candidate, plan: Planned) -> Network:
        """Return the network of a candidate after its full training."""
        epochs = self._final_epochs(candidate)
        if candidate.trains:
            each = epoch_seconds(self.trials.done, candidate, self.proposals.teacher.macs)
            seconds = training_seconds(epochs, each, self.schedule.teacher_seconds, self.run.training)
            later = self.schedule.fresh_seconds if self._is_before_fresh(candidate) else 0.0
            # Trials that were foreseen may not have come, and the epochs are other ones.
            phases_ahead(plan.phases_of(seconds) + plan.phases_of(later))
            say(f"compress: {candidate.name} goes on: {counted(epochs, 'epoch')} in full")
        return self.trials.full(candidate, epochs)

    def _final_epochs(self, candidate: Candidate) -> int:
        """Return the epochs of the full training; with --hours those that fit, which are written down."""
        if not candidate.trains:
            return 0
        return decided(lambda: self._decided_epochs(candidate))

    def _decided_epochs(self, candidate: Candidate) -> int:
        path = self.run.directory / "final.json"
        known = noted(path)
        if candidate.name in known:
            return int(known[candidate.name])
        epochs, hours = self.schedule.epochs, self.given.budget.hours
        each = epoch_seconds(self.trials.done, candidate, self.proposals.teacher.macs)
        if hours is not None and each:
            # The last one has all the time that is left.
            share = 1 - FOR_FRESH if self._is_before_fresh(candidate) else 1
            left = share * SPARE * (hours * 3600 - self.proposals.seconds) - self.trials.seconds
            # It was planned for the slowest candidate; a faster one gets the time that this leaves.
            most = epochs if "epochs" in self.given.training else MOST_EPOCHS
            epochs = max(epochs_within(left, each, self.schedule.teacher_seconds, self.run.training, most), 1)
        write_text(path, dumps({**known, candidate.name: epochs}, indent=1) + "\n")
        return epochs
