"""How long candidates and the winner train, and what it will take, from the times of a few steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kdtool.compression.candidates import Candidate
from kdtool.compression.epoch_times import Times
from kdtool.distillation.successive_halving import expected, rungs
from kdtool.errors import UsageError
from kdtool.training.options import Training

MOST_EPOCHS = 300
"""The longest training that --hours alone leads to."""

SPARE = 0.9
"""The part of the time that is planned; exports, evaluations and other programs take the rest."""

MOST_FOR_TRIALS = 0.55
"""The part of the planned time that trials may take, so that the winner gets the rest."""

MOST_FOR_PARTS = 0.3
"""The same where they have a part of the images: then the time is short, and the winner needs it."""

FOR_FRESH = 0.75
"""The part of the planned time in which a network with fresh weights is trained beside the best one, see `fresh`."""

PARTS = (1, 0.5, 0.25, 0.125)
"""The parts of the train split of which an epoch of a trial consists: the largest for which there is time."""

ROUNDING = 1e-9
"""A time that should be whole may be less by so much."""

LEAST_STEPS = 40
"""The fewest steps of an epoch of a trial that has a part of the train split."""


@dataclass(frozen=True)
class Schedule:
    """Who trains how long: as plain data in the run, since the times of another run would lead to another one."""

    names: tuple[str, ...]
    """The candidates that are trained, in this order."""
    lengths: tuple[int, ...]
    """The epochs of their trainings, see `rungs`."""
    epochs: int
    """The epochs of the winner's training."""
    seconds: float
    """What all trainings together are expected to take; with --hours alone the winner trains until these are over."""
    deadline: float | None = None
    """After so many seconds of trials no further one begins; None without --hours."""
    part: float = 1
    """The part of the train split of which the epochs of trials consist; the winner has all of it."""
    paces: Mapping[str, float] = field(default_factory=dict)
    """The epochs of a candidate's trials for each one in `lengths`, by name; 1 where it is not said, see `paced`."""
    teacher_seconds: float = 0.0
    """What the teacher takes for one view of each training image; trials have seen few of those of the winner."""

    fresh: str = ""
    """The candidate with fresh weights that gets a full training besides the best one, by name; or empty."""
    fresh_epochs: int = 0
    """The epochs that its training is expected to have."""
    fresh_seconds: float = 0.0
    """How long that takes; part of `seconds`."""

    def as_data(self) -> dict[str, Any]:
        """Return the schedule as plain data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Schedule:
        """Return the schedule that `as_data` described."""
        return cls(**{**data, "names": tuple(data["names"]), "lengths": tuple(data["lengths"])})


def paced(epochs: int, paces: Mapping[str, float], name: str) -> int:
    """Return the epochs of a candidate's trial in which the slowest candidate trains for ``epochs``."""
    return int(epochs * max(paces.get(name, 1), 1) + ROUNDING)


def plan(
    candidates: Sequence[Candidate],
    times: Times,
    training: Training,
    *,
    hours: float | None,
    spent: float,
    given: bool,
    steps: int,
    fresh: Candidate | None = None,
    seen: float | None = None,
) -> Schedule:
    """Return how long candidates train: for ``training.epochs``, or so that all is done within ``hours``.

    ``spent`` are the seconds that proposing took. With ``hours``, ``training.epochs`` is a limit if it was ``given``.
    ``steps`` are those of an epoch. If there is little time, trials have a part of the images, and then fewer
    candidates are trained. Where the time is the limit, all trials of a length take about as long: what learns faster
    by the clock has more epochs, also in the winner's training.

    The ``fresh`` candidate is the first one to be tried and gets a full training besides the best one, if that can have
    as many epochs as the teacher has ``seen`` (None: not known).

    Raises:
        UsageError: not even one epoch of one candidate fits into the time.
    """
    tried = [fresh, *(one for one in candidates if one is not fresh)][: max(len(candidates), 2)] if fresh else []
    if hours is None:
        if fresh is None or seen is None or training.epochs < seen:
            return _schedule(candidates, training.epochs, times, training)
        return _with_fresh(_schedule(tried, training.epochs, times, training), fresh, training.epochs, times, training)
    left = SPARE * (hours * 3600 - spent)
    most = training.epochs if given else MOST_EPOCHS
    if fresh is not None and seen is not None:
        epochs = epochs_within(FOR_FRESH * left, times.of(fresh), times.teacher, training, most)
        schedule = _within((1 - FOR_FRESH) * left, tried, times, training, most, steps, given=given)
        if epochs >= max(seen, 1) and schedule is not None and len(schedule.names) > 1:
            return _with_fresh(schedule, fresh, epochs, times, training)
    schedule = _within(left, candidates, times, training, most, steps, given=given)
    if schedule is not None:
        return schedule
    least = times.of(candidates[0]) + times.teacher
    raise UsageError(
        f"--hours {hours:g}: an epoch of the smallest plan takes about {least:.0f} s and proposing took {spent:.0f} s; "
        f"give --hours {(least + spent) / SPARE / 3600 + 0.01:.2f} or more, or --subset"
    )


def _within(
    left: float,
    candidates: Sequence[Candidate],
    times: Times,
    training: Training,
    most: int,
    steps: int,
    *,
    given: bool,
) -> Schedule | None:
    """Return the schedule with the most epochs that takes at most ``left`` seconds; None if not even one epoch fits."""
    paces = {} if given else times.paces(candidates)
    parts = [part for part in PARTS if part == 1 or part * steps >= LEAST_STEPS]
    # With few images each, all candidates are compared; only then are some of them left out.
    tries = [(len(candidates), part) for part in parts]
    tries += [(count, parts[-1]) for count in range(len(candidates) - 1, 0, -1)]
    for count, part in tries:
        tried = candidates[:count]
        most_for_trials = (MOST_FOR_TRIALS if part == 1 else MOST_FOR_PARTS) * max(left, 1e-9)
        low, high = 0, most
        while low < high:
            epochs = (low + high + 1) // 2
            schedule = _schedule(tried, epochs, times, training, part, paces)
            trials = _trial_seconds(tried, epochs, times, part, paces)
            fits = schedule.seconds <= left and (trials <= most_for_trials or count == 1)
            low, high = (epochs, high) if fits else (low, epochs - 1)
        if low >= 1 and _trial_seconds(tried, low, times, part, paces) <= most_for_trials + 1e-9:
            schedule = _schedule(tried, low, times, training, part, paces)
            seconds = schedule.seconds
            if not given:  # the winner goes on for what is left, see `MOST_EPOCHS`
                seconds = max(seconds, min(left, _schedule(tried, most, times, training, part, paces).seconds))
            return dataclasses.replace(schedule, seconds=seconds, deadline=most_for_trials)
    return None


def _with_fresh(schedule: Schedule, fresh: Candidate, epochs: int, times: Times, training: Training) -> Schedule:
    seconds = training_seconds(epochs, times.of(fresh), times.teacher, training)
    return dataclasses.replace(
        schedule,
        seconds=schedule.seconds + seconds,
        fresh=fresh.name,
        fresh_epochs=epochs,
        fresh_seconds=seconds,
    )


def _schedule(
    candidates: Sequence[Candidate],
    epochs: int,
    times: Times,
    training: Training,
    part: float = 1,
    paces: Mapping[str, float] | None = None,
) -> Schedule:
    paces = paces or {}
    lengths = rungs(len(candidates), round(epochs / part)) if len(candidates) > 1 else []
    final = training_seconds(epochs, times.longest(candidates), times.teacher, training)
    seconds = _trial_seconds(candidates, epochs, times, part, paces) + final
    names = tuple(candidate.name for candidate in candidates)
    known = {name: paces[name] for name in names if name in paces}
    return Schedule(names, tuple(lengths), epochs, seconds, part=part, paces=known, teacher_seconds=times.teacher)


def epochs_within(seconds: float, epoch: float, teacher: float, training: Training, most: int) -> int:
    """Return how many epochs fit into a time, at most ``most``, see `training_seconds`; 0 if none does."""
    fitting = [epochs for epochs in range(1, most + 1) if training_seconds(epochs, epoch, teacher, training) <= seconds]
    return max(fitting, default=0)


def training_seconds(epochs: int, epoch: float, teacher: float, training: Training) -> float:
    """Return the seconds of a training whose epochs take ``epoch`` seconds each, with the outputs of the teacher.

    The teacher takes ``teacher`` seconds more for each view of the images.
    """
    recurring = dataclasses.replace(training, epochs=epochs).recurring_views
    return epochs * epoch + teacher * min(recurring or epochs, max(epochs, 1))


def _trial_seconds(
    candidates: Sequence[Candidate], epochs: int, times: Times, part: float, paces: Mapping[str, float]
) -> float:
    """Return what all trials take, if it is an average candidate that goes on."""
    if len(candidates) < 2:
        return 0.0
    trained = [candidate for candidate in candidates if candidate.trains]
    total = 0.0
    for length, going_on in expected(len(candidates), round(epochs / part)):
        each = [times.of(candidate) * paced(length, paces, candidate.name) for candidate in trained]
        total += going_on * sum(each) / len(candidates)
    return part * total
