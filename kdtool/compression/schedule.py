"""How long candidates and the winner train, and what it will take, from the times of a few steps."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from kdtool.compression.candidates import Candidate
from kdtool.data.splits import Data
from kdtool.distillation.successive_halving import expected, rungs
from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.training.engine import engine_for
from kdtool.training.options import Training

TIMED_STEPS = 2
"""Steps that are timed, after one that is not."""

MOST_EPOCHS = 300
"""The longest training that --hours alone leads to."""

SPARE = 0.9
"""The part of the time that is planned; exports, evaluations and other programs take the rest."""

LEARNING = 3
"""A step of a training computes about so many times what a forward pass does."""

SEARCHED = 2
"""The epochs of a search for each epoch of the training behind it: in short trials, which need two at least."""

MOST_FOR_TRIALS = 0.55
"""The part of the planned time that trials may take, so that the winner gets the rest."""

MOST_FOR_PARTS = 0.3
"""The same where they have a part of the images: then the time is short, and the winner needs it."""

PARTS = (1, 0.5, 0.25, 0.125)
"""The parts of the train split of which an epoch of a trial consists: the largest for which there is time."""

ROUNDING = 1e-9

MOST_PACE = 4
"""A trial has at most so many times the epochs of the slowest candidate's."""

LEAST_STEPS = 40
"""The fewest steps of an epoch of a trial that has a part of the train split."""


@dataclass(frozen=True)
class Times:
    """What an epoch takes, in seconds."""

    by_candidate: Mapping[str, float]
    """A training of each candidate over the train split, with its validation."""
    teacher: float
    """The teacher over the train split."""

    def of(self, candidate: Candidate) -> float:
        """Return the seconds of an epoch of a candidate.

        One that a training makes is searched in the teacher, which learns meanwhile, and then trained.
        """
        longest = max(self.by_candidate.values(), default=0.0)
        return self.by_candidate.get(candidate.name, longest + SEARCHED * LEARNING * self.teacher)

    def longest(self, candidates: Sequence[Candidate]) -> float:
        """Return the seconds of an epoch of the slowest candidate, when all are made."""
        trained = [candidate for candidate in candidates if candidate.trains]
        made = [self.of(candidate) for candidate in trained if not candidate.made_by_training]
        return max(made) if made else max((self.of(candidate) for candidate in trained), default=0.0)

    def paces(self, candidates: Sequence[Candidate]) -> dict[str, float]:
        """Return by name how many epochs a candidate trains for in the time of one of the slowest, where these differ.

        A search of a student has a time of its own.
        """
        longest = self.longest(candidates)
        made = [one for one in candidates if one.trains and not one.made_by_training and self.of(one) > 0]
        return {one.name: min(longest / self.of(one), MOST_PACE) for one in made}


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
) -> Schedule:
    """Return how long candidates train: for ``training.epochs``, or so that all is done within ``hours``.

    ``spent`` are the seconds that proposing took. With ``hours``, ``training.epochs`` is a limit if it was ``given``.
    ``steps`` are those of an epoch. If there is little time, trials have a part of the images, and then fewer
    candidates are trained. Where the time is the limit, all trials of a length take about as long: what learns faster
    by the clock has more epochs, also in the winner's training.

    Raises:
        UsageError: not even one epoch of one candidate fits into the time.
    """
    if hours is None:
        return _schedule(candidates, training.epochs, times, training)
    left = SPARE * (hours * 3600 - spent)
    most = training.epochs if given else MOST_EPOCHS
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
    least = times.of(candidates[0]) + times.teacher
    raise UsageError(
        f"--hours {hours:g}: an epoch of the smallest plan takes about {least:.0f} s and proposing took {spent:.0f} s; "
        f"give --hours {(least + spent) / SPARE / 3600 + 0.01:.2f} or more, or --subset"
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
    final = times.longest(candidates) * epochs + times.teacher * _views(training, epochs)
    seconds = _trial_seconds(candidates, epochs, times, part, paces) + final
    names = tuple(candidate.name for candidate in candidates)
    known = {name: paces[name] for name in names if name in paces}
    return Schedule(names, tuple(lengths), epochs, seconds, part=part, paces=known, teacher_seconds=times.teacher)


def epochs_within(seconds: float, epoch: float, teacher: float, training: Training, most: int) -> int:
    """Return how many epochs fit into a time, at least one and at most ``most``, if one takes ``epoch`` seconds.

    The teacher takes ``teacher`` seconds more for each view of the images.
    """
    fitting = [
        epochs for epochs in range(1, most + 1) if epochs * epoch + teacher * _views(training, epochs) <= seconds
    ]
    return max(fitting, default=1)


def _views(training: Training, epochs: int) -> int:
    """Return how many views of an image a training of so many epochs has."""
    recurring = dataclasses.replace(training, epochs=epochs).recurring_views
    return min(recurring or epochs, max(epochs, 1))


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


def time_epochs(candidates: Sequence[Candidate], teacher: Network, training: Training, data: Data) -> Times:
    """Time a few steps of every candidate on random images, and return what an epoch of each takes."""
    steps = math.ceil(len(data.train) / training.batch_size)
    validation = len(data.val) / max(len(data.train), 1)
    forward = _step(teacher, training, learns=False)
    seconds = {}
    for candidate in candidates:
        if candidate.network is not None and candidate.trains:
            step = _step(candidate.network, training)
            seconds[candidate.name] = steps * step * (1 + validation / 3)
    return Times(seconds, steps * forward)


def _step(network: Network, training: Training, *, learns: bool = True) -> float:
    """Return the seconds of one step on a batch of random images, or of a forward pass."""
    engine = engine_for(training, training.batch_size, network)
    module = engine.place(copy.deepcopy(network.module)).train(learns).requires_grad_(learns)
    images = torch.randn(training.batch_size, *network.architecture.input, device=engine.device)
    labels = torch.zeros(training.batch_size, dtype=torch.int64, device=engine.device)
    best = math.inf
    for step in range(TIMED_STEPS + 1):
        started = time.perf_counter()
        with torch.set_grad_enabled(learns), engine.autocast():
            logits = module(images)
        if learns:
            F.cross_entropy(logits.float(), labels).backward()
            module.zero_grad()
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        if step:
            best = min(best, time.perf_counter() - started)
    return best
