"""Successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943): choose between settings by short trainings."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdtool.errors import UsageError
from kdtool.utils.progress import say

if TYPE_CHECKING:
    from kdtool.distillation.distiller import Distiller
    from kdtool.models.architecture import Network
    from kdtool.training.run import Run


def rounds(settings: int, epochs: int) -> list[tuple[int, int]]:
    """Return how many settings are left in each round, and for how many epochs each of them trains.

    Each round keeps the better half and trains it twice as long; all rounds cost the same, and together about one
    training of ``epochs``.
    """
    count = max(math.ceil(math.log2(settings)), 1)
    left = [math.ceil(settings / 2**number) for number in range(count)]
    return [(one, max(round(epochs / (count * one)), 1)) for one in left]


def choose(
    run: Run, settings: Mapping[str, Distiller], teacher: Network, student: Network | None
) -> tuple[Distiller, dict[str, Any]]:
    """Return the setting that validates best, and what was found and what it cost, as plain data.

    Every training begins anew, with the same seed and the schedule of the learning rate over its own epochs.

    Raises:
        UsageError: nothing is trained, so that there is nothing to choose by.
    """
    if run.training.epochs < 1:
        raise UsageError("--search: with --epochs 0 there is nothing to choose by")
    started = time.perf_counter()
    left, found, spent = list(settings), [], 0
    for number, (count, epochs) in enumerate(rounds(len(settings), run.training.epochs), start=1):
        left, results = left[:count], []
        for name in left:
            trial = run.sub_run(f"search {number} {name}", dataclasses.replace(run.training, epochs=epochs))
            score = trial.evaluate(settings[name].distill(trial, teacher, student))
            results.append({"setting": name, "accuracy": score["accuracy"], "loss": score["loss"]})
        results.sort(key=lambda result: (-result["accuracy"], result["loss"]))
        shown = ", ".join(f"{result['setting']} {result['accuracy']:.4f}" for result in results)
        say(f"search, round {number}, validation accuracy after {_epochs(epochs)}: {shown}")
        found.append({"epochs": epochs, "results": results})
        left, spent = [result["setting"] for result in results], spent + count * epochs
    seconds = round(time.perf_counter() - started, 1)
    say(f"search: {left[0]}; it cost {_epochs(spent)} and {seconds} s, a training has {_epochs(run.training.epochs)}")
    return settings[left[0]], {"chosen": left[0], "rounds": found, "epochs": spent, "seconds": seconds}


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
