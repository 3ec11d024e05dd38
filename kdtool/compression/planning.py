"""Who is trained and for how long: found before the trials, kept in the run, and said.

Of several processes the first one proposes, measures and plans alone; the others get its files.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdtool.commands.foresight import tell
from kdtool.compression.candidate_files import FOLDER, keep, kept, share
from kdtool.compression.candidates import UNTRIED, Candidate, Proposals
from kdtool.compression.costs import device_known, scratch
from kdtool.compression.epoch_times import Times, time_epochs
from kdtool.compression.fresh import epochs_seen, fresh_one
from kdtool.compression.mending import mend
from kdtool.compression.options import Given
from kdtool.compression.proposals import propose, say_proposals
from kdtool.compression.record import as_data, restored
from kdtool.compression.schedule import Schedule, paced, plan
from kdtool.distillation.distiller import Distiller
from kdtool.distillation.successive_halving import HALF
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.training.foresight.forecast import Cost, Forecast, ForeseenPhase, read_forecast, write_forecast
from kdtool.training.foresight.rehearsal import rehearse
from kdtool.training.foresight.stopwatch import bytes_of
from kdtool.training.run import Run
from kdtool.utils.files import write_text
from kdtool.utils.formatting import counted
from kdtool.utils.processes import decided, launched
from kdtool.utils.progress import command_progress, say
from kdtool.utils.strict_json import dumps

PROPOSALS = "proposals.json"
"""The file of the run with what was measured, and who trains how long."""


@dataclass(frozen=True)
class Planned:
    """What was proposed, who is trained, for how long, and what that is expected to cost."""

    proposals: Proposals
    chosen: list[Candidate]
    schedule: Schedule
    forecast: Forecast | None

    def phases_of(self, seconds: float) -> list[tuple[str, float]]:
        """Return the phases of a training that takes so long, each with its title and its seconds."""
        searches = {candidate.method for candidate in self.chosen if candidate.made_by_training}
        total: dict[str, float] = {}
        for phase in self.forecast.phases if self.forecast is not None else ():
            if phase.name not in searches:
                total[phase.name] = total.get(phase.name, 0.0) + phase.cost.seconds
        whole = sum(total.values()) or 1.0
        return [(name, seconds * part / whole) for name, part in total.items()]


def planned(
    run: Run, distiller: Distiller, given: Given, parent: Checkpoint, teacher: Network, *, dry_run: bool = False
) -> Planned:
    """Propose, measure and plan, or return what an earlier process of the run has planned.

    In a dry run the weights of candidates are not corrected, which only a training needs.

    Raises:
        UsageError: the teacher meets the budget, or --hours are too few.
        Error: nothing meets the budget.
    """
    path = run.directory / PROPOSALS
    decided(lambda: None if path.exists() else _plan(run, distiller, given, parent, teacher, mends=not dry_run))
    names = decided(lambda: [PROPOSALS, *(f"{FOLDER}/{file.name}" for file in _kept_files(run))])
    for name in names:
        share(run, name)
    about = json.loads(path.read_text(encoding="utf-8"))
    proposals, chosen, schedule = restored(
        about, lambda one: kept(run, one.name) if one.trains else parent.network
    )  # fmt: skip
    return Planned(proposals, chosen, schedule, read_forecast(run.directory))


def _kept_files(run: Run) -> list[Path]:
    return sorted((run.directory / FOLDER).glob("*.pt"))


def _plan(run: Run, distiller: Distiller, given: Given, parent: Checkpoint, teacher: Network, *, mends: bool) -> None:
    """Write the plan of a run, and the networks of the candidates that are trained."""
    started, budget = time.perf_counter(), given.budget
    if (known := device_known(budget)) is not None:
        say(f"compress: {known}")
    with scratch() as folder:
        proposals = propose(run, parent.network, budget, folder)
    chosen = proposals.chosen(budget.trials)
    say_proposals(proposals, chosen)
    if mends:
        mend(run, parent.network, chosen, budget.hours)
    fresh = fresh_one(proposals.candidates)
    timed = [*chosen, *([fresh] if fresh is not None and all(fresh is not one for one in chosen) else [])]
    times = time_epochs(timed, teacher, run.training, run.data)
    proposals.seconds = time.perf_counter() - started  # steps of the teacher and of slow candidates take long
    schedule = plan(
        chosen, times, run.training,
        hours=budget.hours, spent=proposals.seconds, given="epochs" in given.training, steps=_steps(run),
        fresh=fresh, seen=epochs_seen(parent.history, len(run.data.train)),
    )  # fmt: skip
    full = len(schedule.names) == len(chosen)  # then the fresh one took the place of the last one
    for candidate in chosen:
        candidate.note = UNTRIED if full else "no time to train it"
    by_name = {candidate.name: candidate for candidate in timed}
    chosen = [by_name[name] for name in schedule.names]
    for candidate in chosen:
        candidate.note = ""
        keep(run, candidate)
    if launched() < 2:  # the times of one process are not those of several
        write_forecast(run.directory, forecast_of(run, distiller, teacher, chosen, schedule, times))
    write_text(run.directory / PROPOSALS, dumps(as_data(proposals, schedule), indent=1) + "\n")


def forecast_of(
    run: Run,
    distiller: Distiller,
    teacher: Network,
    chosen: Sequence[Candidate],
    schedule: Schedule,
    times: Times,
) -> Forecast:
    """Return what all trainings will cost, if the candidates come in the order of their names.

    The training of the candidate that takes longest is rehearsed, so that its phases, memory and files are known.
    """
    trained = [candidate for candidate in chosen if candidate.trains]
    made = [candidate for candidate in trained if candidate.network is not None]
    steps = _steps(run)
    whole = Forecast([], Cost())
    if made:
        slowest = max(made, key=times.of)
        inner = run.with_training(epochs=schedule.epochs)
        whole, _ = rehearse(lambda run: distiller.distill(run, teacher, slowest.network), inner)
    share = [phase.cost.seconds / max(sum(p.cost.seconds for p in whole.phases), 1e-9) for phase in whole.phases]
    phases: list[ForeseenPhase] = []

    def add(candidate: Candidate, epochs: int) -> None:
        cost = Cost(times.of(candidate) * epochs * schedule.part)
        if candidate.made_by_training or not whole.phases:
            phases.append(ForeseenPhase(candidate.method, epochs, math.ceil(steps * schedule.part), cost))
            return
        for phase, part in zip(whole.phases, share, strict=True):
            count = max(round(phase.epochs * epochs / max(schedule.epochs, 1)), 1)
            phases.append(ForeseenPhase(phase.name, count, math.ceil(phase.steps * schedule.part), cost * part))

    left = list(chosen)
    for epochs in schedule.lengths:
        for candidate in left:
            if candidate.trains:
                add(candidate, paced(epochs, schedule.paces, candidate.name))
        left = left[: -(-len(left) // HALF)]
    if trained:
        final = schedule.seconds - schedule.fresh_seconds - sum(phase.cost.seconds for phase in phases)
        finals = [max(final, times.longest(trained) * schedule.epochs)]
        finals += [schedule.fresh_seconds] if schedule.fresh else []
        for seconds, (phase, part) in itertools.product(finals, zip(whole.phases, share, strict=True)):
            count = max(round(phase.epochs), 1)
            phases.append(ForeseenPhase(phase.name, count, phase.steps, Cost(seconds * part)))
    kept_bytes = sum(bytes_of(one.network.module.state_dict()) for one in made if one.network is not None)
    return Forecast(
        phases=phases,
        cost=Cost(schedule.seconds),
        memory_bytes=whole.memory_bytes,
        gpu_bytes=whole.gpu_bytes,
        disk_bytes=whole.disk_bytes + kept_bytes * (1 + len(schedule.lengths)),
        at_most=whole.at_most,
        timed_steps=whole.timed_steps,
    )


def _steps(run: Run) -> int:
    """Return the steps of an epoch of the run."""
    return -(-len(run.data.train) // run.training.batch_size)


@contextmanager
def foreseen(plan: Planned, target: Path) -> Iterator[None]:
    """Say who is trained for how long and what it costs, and show the progress of all trainings meanwhile."""
    schedule = plan.schedule
    if schedule.lengths:
        first, *longer = [epochs * schedule.part for epochs in schedule.lengths]
        better = f", the better ones for {' and '.join(f'{epochs:g}' for epochs in longer)}" if longer else ""
        number = len(schedule.names)
        who = "both candidates" if number == 2 else f"all {number} candidates"
        full = f"{schedule.epochs}{' or as many as the time allows' if schedule.deadline is not None else ''}"
        most = max((int(pace) for pace in schedule.paces.values()), default=1)
        faster = f" (faster ones for up to {most} times as many, as long by the clock)" if most > 1 else ""
        say(f"compress: {who} train for {counted(first, 'epoch')}{better}{faster}, and the best in full, for {full}")
        if schedule.fresh:
            say(
                f"compress: {schedule.fresh} has fresh weights, of which short trials say little: it goes on in full "
                f"too, for about {counted(schedule.fresh_epochs, 'epoch')}"
            )
    if plan.forecast is None or not plan.forecast.phases:
        yield
        return
    tell(plan.forecast, target)
    with command_progress(target.name, [(phase.name, phase.cost.seconds) for phase in plan.forecast.phases]):
        yield
