"""What an epoch of each candidate takes, from the times of a few steps."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from kdtool.compression.candidates import Candidate
from kdtool.data.splits import Data
from kdtool.models.architecture import Network
from kdtool.training.engine import engine_for
from kdtool.training.options import Training

TIMED_STEPS = 2
"""Steps that are timed, after one that is not."""

LEARNING = 3
"""A step of a training computes about so many times what a forward pass does."""

SEARCHED = 2
"""The epochs of a search for each epoch of the training behind it: in short trials, which need two at least."""

MOST_PACE = 4
"""A trial has at most so many times the epochs of the slowest candidate's."""


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
