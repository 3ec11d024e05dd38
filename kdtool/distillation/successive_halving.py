"""Choose between settings by short trainings: successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943).

All settings train for a short time, the better half of them longer, and so on. Optuna decides which these are. Its
studies are in memory: a search that was cut is repeated from the results of the trainings, which are on the disk.
"""

from __future__ import annotations

import dataclasses
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from kdtool.errors import UsageError
from kdtool.plugins.method_code import running_method
from kdtool.training.phase import count_epochs
from kdtool.utils.classification import deciding
from kdtool.utils.files import slug
from kdtool.utils.processes import decided
from kdtool.utils.progress import say

if TYPE_CHECKING:
    from kdtool.distillation.distiller import Distiller
    from kdtool.models.architecture import Network
    from kdtool.training.run import Run

HALF = 2
"""Of so many settings, the best one trains longer."""

MEASURES = ("accuracy", "balanced_accuracy", "loss")
"""What is kept of the metrics of a training; the second only where it selects."""

LOSS_COUNTS = 1e-9
"""The part of the loss that is taken off the accuracy, so that it decides between equal accuracies."""


@dataclass
class Halving:
    """What a search came to: every training, and the setting that validated best in the longest ones."""

    best: str
    trainings: list[dict[str, Any]] = field(default_factory=list)
    """``setting``, ``epochs``, and the `Score` of each, in the order of the trainings."""

    def rounds(self) -> list[dict[str, Any]]:
        """Return the trainings of equal length together, the best first: ``epochs`` and ``results``."""
        lengths = sorted({row["epochs"] for row in self.trainings})
        return [{"epochs": epochs, "results": self._ranked(epochs)} for epochs in lengths]

    def _ranked(self, epochs: int) -> list[dict[str, Any]]:
        rows = [row for row in self.trainings if row["epochs"] == epochs]
        results = [{key: row[key] for key in ("setting", *MEASURES) if key in row} for row in rows]
        return sorted(results, key=value_of, reverse=True)


def rungs(settings: int, epochs: int) -> list[int]:
    """Return the lengths of the trainings in which settings are compared, in epochs, the shortest first.

    There are as many as it takes to get from ``settings`` to one by halves. If every second setting goes on to the
    next length, each length costs the same, and all together about one training of ``epochs``.
    """
    count = max(math.ceil(math.log2(settings)), 1)
    remaining = [math.ceil(settings / HALF**number) for number in range(count)]
    return sorted({max(round(epochs / (count * tried)), 1) for tried in remaining})


def expected(settings: int, epochs: int) -> list[tuple[int, int]]:
    """Return each length in epochs with how many settings train for it, if the better half always goes on."""
    return [(length, math.ceil(settings / HALF**number)) for number, length in enumerate(rungs(settings, epochs))]


Score = Mapping[str, Any]
"""``accuracy`` and ``loss`` on the validation split, and ``balanced_accuracy`` if that selects."""


def halve(
    names: Sequence[str],
    lengths: Sequence[int],
    train: Callable[[Sequence[tuple[str, int]]], Sequence[Score | None]],
) -> Halving:
    """Train all settings for the first of the ``lengths``, the better half of them for the next, and so on.

    ``train`` takes the names and epochs of all trainings of one length, which do not depend on each other, the setting
    that validated best so far first. It returns ``accuracy`` and ``loss`` on the validation split after so many epochs
    from scratch, or None for what was not trained, which then trains no longer.
    """
    halving, left = Halving(""), [*names]
    for epochs in lengths:
        scores = train([(name, epochs) for name in left])
        known = {name: score for name, score in zip(left, scores, strict=True) if score is not None}
        halving.trainings += [{"setting": name, "epochs": epochs, **score} for name, score in known.items()]
        left = better_half({name: value_of(score) for name, score in known.items()})
        if not left:
            break
        halving.best = left[0]
    return halving


def value_of(score: Score) -> float:
    """Return the number by which settings are compared: the accuracy that selects, and the loss where it is equal."""
    return deciding(score) - LOSS_COUNTS * min(float(score["loss"]), 1e3)


def better_half(values: Mapping[str, float]) -> list[str]:
    """Return the names of the values that are not below the median, the largest first.

    Optuna's pruners that halve (SuccessiveHalvingPruner, and Hyperband, which is made of it) decide about each trial as
    soon as it reports, among those before it, so that the first trial would always train longest. Here all values of a
    length are in the study before its pruner is asked about any of them.
    """
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=0))
        study.add_trials(
            [optuna.trial.create_trial(value=value, intermediate_values={0: value}) for value in values.values()]
        )
        kept = []
        for name in sorted(values, key=lambda name: -values[name]):
            trial = study.ask()
            trial.report(values[name], step=0)
            if not trial.should_prune():
                kept.append(name)
        return kept
    finally:
        optuna.logging.set_verbosity(level)


def choose(
    run: Run, settings: Mapping[str, Distiller], teacher: Network, student: Network | None
) -> tuple[Distiller, dict[str, Any]]:
    """Return the setting that validates best, and a report of the trainings and their cost as plain data.

    ``settings`` are distillers by the text of their options. Every training starts from scratch, with the same seed and
    with the learning rate's schedule over its own epochs. The report holds ``chosen``, ``rounds`` (the trainings of one
    length each), ``epochs`` (of all trainings and their phases, as they ended) and ``seconds``.

    Raises:
        UsageError: there are no epochs, so that no setting is trained.
    """
    if run.training.epochs < 1:
        raise UsageError("--search: with --epochs 0 there is nothing to choose by; give --epochs of 1 or more")
    started = time.perf_counter()

    titles = titles_of(settings)

    def trial(name: str, epochs: int, title: str, run: Run) -> dict[str, Any]:
        inner = run.sub_run(title, dataclasses.replace(run.training, epochs=epochs))
        with running_method(settings[name]):
            made = settings[name].distill(inner, teacher, student)
        score = inner.evaluate(made)
        trained = decided(lambda: sum(count_epochs(inner.directory).values()))
        return {**{key: score[key] for key in MEASURES if key in score}, "trained": trained}

    def train(trials: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        named = [(f"search {titles[name]} {_epochs(epochs)}", name, epochs) for name, epochs in trials]
        tasks = {title: partial(trial, name, epochs, title) for title, name, epochs in named}
        scores = [*run.each(tasks).values()]
        for (name, epochs), score in zip(trials, scores, strict=True):
            say(f"search: {name} reaches {deciding(score):.4f} on validation images after {_epochs(epochs)}")
        return scores

    halving = halve([*settings], rungs(len(settings), run.training.epochs), train)
    seconds = round(time.perf_counter() - started, 1)
    best, cost = halving.best, sum(row["trained"] for row in halving.trainings)
    say(f"search: {best}; it cost {_epochs(cost)} and {seconds} s")
    report = {"chosen": best, "rounds": halving.rounds(), "epochs": cost, "seconds": seconds}
    return settings[best], report


def titles_of(names: Iterable[str]) -> dict[str, str]:
    """Return what the training of each setting is called, which names its directory.

    It is the name of the setting. Names that would give the same directory, such as those of the weights 1e-3 and
    1e+3, are followed by a checksum, which does not depend on the other settings.
    """
    texts = [*names]
    counts = Counter(map(slug, texts))
    return {text: text if counts[slug(text)] == 1 else f"{text} {zlib.crc32(text.encode()):08x}" for text in texts}


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
