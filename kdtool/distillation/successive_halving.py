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
    """Return for each round how many settings are tried, and for how many epochs each of them is trained.

    Each round keeps the better half of the settings and trains it twice as long. All rounds cost the same, and together
    about one training of ``epochs``.
    """
    count = max(math.ceil(math.log2(settings)), 1)
    remaining = [math.ceil(settings / 2**number) for number in range(count)]
    return [(tried, max(round(epochs / (count * tried)), 1)) for tried in remaining]


def choose(
    run: Run, settings: Mapping[str, Distiller], teacher: Network, student: Network | None
) -> tuple[Distiller, dict[str, Any]]:
    """Return the setting that validates best, and a report of the rounds and their cost as plain data.

    ``settings`` are distillers by the text of their options. Every training starts from scratch, with the same seed and
    with the learning rate's schedule over its own epochs. The report holds ``chosen``, ``rounds``, ``epochs`` (of all
    trainings) and ``seconds``.

    Raises:
        UsageError: there are no epochs, so that no setting is trained.
    """
    if run.training.epochs < 1:
        raise UsageError("--search: with --epochs 0 there is nothing to choose by; give --epochs of 1 or more")
    started = time.perf_counter()
    names, reports, spent = list(settings), [], 0
    for number, (count, epochs) in enumerate(rounds(len(settings), run.training.epochs), start=1):
        names, results = names[:count], []
        for name in names:
            trial = run.sub_run(f"search {number} {name}", dataclasses.replace(run.training, epochs=epochs))
            score = trial.evaluate(settings[name].distill(trial, teacher, student))
            results.append({"setting": name, "accuracy": score["accuracy"], "loss": score["loss"]})
        results.sort(key=lambda result: (-result["accuracy"], result["loss"]))
        shown = ", ".join(f"{result['setting']} {result['accuracy']:.4f}" for result in results)
        say(f"search, round {number}, validation accuracy after {_epochs(epochs)}: {shown}")
        reports.append({"epochs": epochs, "results": results})
        names, spent = [result["setting"] for result in results], spent + count * epochs
    seconds = round(time.perf_counter() - started, 1)
    best = names[0]
    say(f"search: {best}; it cost {_epochs(spent)} and {seconds} s; the training has {_epochs(run.training.epochs)}")
    return settings[best], {"chosen": best, "rounds": reports, "epochs": spent, "seconds": seconds}


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
