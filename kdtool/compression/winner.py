"""The end of a compression: which winner meets the budget as it is exported, its checkpoint and the frontier."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdtool.commands.outputs import finish
from kdtool.compression import frontier
from kdtool.compression.candidate_files import of_quantised
from kdtool.compression.candidates import FLOAT, Candidate
from kdtool.compression.costs import NEAR
from kdtool.compression.exported_winner import as_exported, excess, file_of, write_quantised
from kdtool.compression.options import Given
from kdtool.compression.record import RESULTS, data_of, limits_as_data
from kdtool.compression.schedule import Schedule
from kdtool.compression.trial_rows import FULL
from kdtool.compression.trials import Trials
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.plugins.distributions import versions_of
from kdtool.training.run import Run
from kdtool.utils.classification import deciding
from kdtool.utils.files import noted, sha256_of, slug, write_text
from kdtool.utils.formatting import counted
from kdtool.utils.processes import decided
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps

EXPORTED = "exported.json"
"""The file of a run with what winners cost as they are exported, by the candidate's name."""

DECIDING = "deciding"
"""In that file, the accuracy of 8 bits on the validation images that ``--select`` names, if it is not the plain one."""


@dataclass
class Winner:
    """A candidate after its full training."""

    candidate: Candidate
    network: Network
    epochs: int
    accuracy: float
    """On the validation images; in 8 bits at last that of the file that is written."""
    costs: Mapping[str, Any] | None = field(default=None, repr=False)
    """What its exported file costs, as `kdtool export` measures it."""
    missed: str = ""
    """What of the budget it does not meet, as text; empty if it meets all of it."""


@dataclass(frozen=True)
class Finish:
    """What is done in the run of a compression once the winners are trained."""

    run: Run
    given: Given
    parent: Checkpoint
    teacher: Network
    schedule: Schedule
    trials: Trials

    def written(self, winners: Sequence[Winner], target: Path) -> Checkpoint:
        """Write the winner with the frontier, and return its checkpoint.

        It is the first of the winners that meets the budget as it is exported, or else the first one.
        """
        run, proposals = self.run, self.trials.proposals
        teacher = deciding(run.evaluate(self.teacher))
        winner = self.chosen(winners, teacher, target)
        if winner.missed:
            self._say_others({one.candidate.name for one in winners}, teacher)
        candidate, costs = winner.candidate, winner.costs
        training, data = self.trials.settled(candidate, winner.epochs)
        run.entry.training, run.entry.data = training.as_data(), data.spec.as_data()
        plugins = [(candidate.kind, candidate.method), ("teachers", winner.network.architecture.source)]
        run.entry.versions = {**run.entry.versions, **versions_of(plugins)}
        digest = decided(lambda: self._place(candidate, target)) if candidate.precision != FLOAT else None
        table = frontier.rows(proposals, self.trials.candidates, self.trials.done, teacher)
        row = next(row for row in table if row["model"] == candidate.name)
        row |= {"note": "winner", "val_accuracy": winner.accuracy}
        if costs and self.given.budget.max_size is not None:  # else the bytes of all rows are without what a file tells
            row["file_bytes"] = costs["file_bytes"]
        table = frontier.settle(table)
        measured = {name: costs.get(name) for name in ("file_bytes", "latency", "accuracy")} if costs else None
        if measured and digest is not None:
            measured |= {"onnx": str(file_of(target)), "onnx_sha256": digest}
        typed = " ".join(f"{flag} {text}" for flag, text in self.given.budget.texts.items())
        about = {
            **self.given.budget.as_data(),
            "met": not winner.missed,
            "missed": winner.missed and f"nothing met {typed}: nearest was {candidate.name}, {winner.missed}",
            "device": proposals.device,
            "measured": measured,
        }
        run.record(budget=about, candidate=data_of(candidate))
        if run.masked and not candidate.inherits:
            run.record(masked=False)
        run.rows = table
        trained_in = run.directory / "phases" / slug(FULL.format(candidate.name))
        checkpoint = finish(run, winner.network, target, trained_in=trained_in)
        results: dict[str, Any] = {
            "checkpoint": str(target),
            "winner": candidate.name,
            "quantised_file": None if candidate.precision == FLOAT else str(file_of(target)),
            **about,
            "limits": limits_as_data(proposals.limits),
            "expected_seconds": self.schedule.seconds,
            "seconds": proposals.seconds + self.trials.seconds,
            "rows": table,
            "trials": self.trials.done,
            "refused": proposals.refused,
            "metrics": checkpoint.metrics,
            "teacher_metrics": run.scores(self.teacher),
        }
        files = {RESULTS: dumps(results, indent=1)}
        for cost, svg in frontier.charts(table, proposals, candidate.name, run.training.select).items():
            files[f"frontier-{cost}.svg"] = svg
        for name, text in files.items():
            decided(lambda name=name, text=text: write_text(run.directory / name, text + "\n"))  # type: ignore[misc]
        return checkpoint

    def chosen(self, winners: Sequence[Winner], teacher: float, target: Path) -> Winner:
        """Return the first winner that meets the budget as it is exported; if none does, the first one.

        ``teacher`` is the accuracy of the teacher on the validation images, ``target`` where the checkpoint will be.
        """
        for winner in winners:
            winner.costs = self._exported(winner, target)
            of_file = (winner.costs or {}).get("quantised") or {}
            winner.accuracy = of_file.get(DECIDING, of_file.get("val_accuracy", winner.accuracy))
            winner.missed = self._missed(winner, teacher)
            if not winner.missed:
                for other in winners[: winners.index(winner)]:
                    name = winner.candidate.name
                    say(f"compress: {other.candidate.name} is {other.missed}, as it is exported; {name} is taken")
                    other.candidate.note = "beyond the budget as it was exported"
                return winner
        return winners[0]

    def _say_others(self, winners: Collection[str], teacher: float) -> None:
        """Say which of the candidates that met the budget in a trial is the best, though it was not trained in full."""
        drop = self.given.budget.max_drop
        least = 0.0 if drop is None else teacher - drop.fraction
        rows = [row for row in self.trials.done if row["within"] and row["accuracy"] >= least and row["checkpoint"]]
        rows = [row for row in rows if row["setting"] not in winners and row["epochs"]]
        # By the longest measurement; the row has the first one.
        allow, by_name = self.trials.proposals.limits.allow, self.trials.by_name
        rows = [row for row in rows if allow(by_name[row["setting"]].cost)]
        if rows:
            best = max(rows, key=lambda row: row["accuracy"])
            say(
                f"compress: {best['setting']} met the budget in its trial: {best['accuracy']:.4f} on validation images "
                f"after {counted(best['epochs'], 'epoch')}, kept in {self.run.directory / best['checkpoint']}"
            )

    def _exported(self, winner: Winner, target: Path) -> dict[str, Any] | None:
        """Return what a winner costs as it is exported, as an earlier process of the run or this one measured it."""
        run, budget, candidate = self.run, self.given.budget, winner.candidate
        limits = self.trials.proposals.limits

        def measured() -> dict[str, Any] | None:
            path = run.directory / EXPORTED
            known = noted(path)
            files = (self._file(candidate), file_of(target))
            gone = candidate.precision != FLOAT and not any(file.exists() for file in files)
            if candidate.name not in known or gone:
                costs = as_exported(candidate, run.checkpoint(winner.network, []), self.teacher, budget, limits)
                if costs is None and candidate.precision != FLOAT:
                    untold = run.checkpoint(winner.network, run.scores(winner.network))
                    file = self._file(candidate)
                    costs = write_quantised(candidate, untold, self.parent, file, budget, limits)
                    if costs and run.training.select != "accuracy":
                        costs["quantised"] |= {DECIDING: deciding(of_quantised(file, run))}
                known[candidate.name] = costs
                write_text(path, dumps(known, indent=1, default=str) + "\n")
            costs = known[candidate.name]
            return None if costs is None else dict(costs)

        return decided(measured)

    def _file(self, candidate: Candidate) -> Path:
        """Return where the file of a winner in 8 bits is kept until the winner is known."""
        return self.run.directory / f"{slug(candidate.name)}-exported.onnx"

    def _place(self, candidate: Candidate, target: Path) -> str:
        """Put the file of the winner beside its checkpoint, as an earlier process of the run may have done.

        Return its SHA-256, by which an export knows that it may write it again.
        """
        file, place = self._file(candidate), file_of(target)
        if file.exists():
            shutil.move(file, place)
        say(
            f"compress: the file of 8 bits is {place}; {target.name} has the weights in float32, and an export of it "
            "is within the budget with --int8 only"
        )
        return sha256_of(place)

    def _missed(self, winner: Winner, teacher: float) -> str:
        """Return what of the budget a winner does not meet, as text; empty if it meets all of it."""
        budget, limits, candidate = self.given.budget, self.trials.proposals.limits, winner.candidate
        latency, size = excess(winner.costs, limits) if winner.costs else (0.0, 0.0)
        if winner.costs and winner.costs.get("latency"):  # what was measured before is less certain
            limits = replace(limits, latency_ratio=math.inf)
        if winner.costs and winner.costs.get("file_bytes"):
            limits = replace(limits, file_bytes=math.inf)
        load = max(latency / NEAR, limits.load(candidate.cost) if candidate.cost else 0.0)
        parts = [f"{max(load, latency):.2f} times the cost"] if load > 1 else []
        if size > 1 and winner.costs:
            parts.append(f"{winner.costs['file_bytes']:,} bytes, where --max-size allows {budget.max_size}")
        if budget.max_drop is not None and teacher - winner.accuracy > budget.max_drop.fraction + 1e-12:
            parts.append(
                f"{teacher - winner.accuracy:.2%} less accurate than the teacher on validation images "
                f"({winner.accuracy:.2%}), where --max-drop allows {budget.max_drop}"
            )
        return " and ".join(parts)
