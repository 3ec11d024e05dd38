"""Choose between settings by short trainings: successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943).

Optuna decides which settings train longer, in its asynchronous form (Li et al., 2020, arXiv:1810.05934). Its study is
in memory: a search that was cut is repeated from the results of the trainings, which are on the disk.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from kdtool.errors import UsageError
from kdtool.utils.progress import say

if TYPE_CHECKING:
    import optuna

    from kdtool.distillation.distiller import Distiller
    from kdtool.models.architecture import Network
    from kdtool.training.run import Run

HALF = 2
"""Of so many settings, the best one trains longer."""

LOSS_COUNTS = 1e-9
"""The part of the loss that is taken off the accuracy, so that it decides between equal accuracies."""


@dataclass
class Halving:
    """What a search came to: every training, and the setting that validated best in the longest ones."""

    best: str
    trainings: list[dict[str, Any]] = field(default_factory=list)
    """``setting``, ``epochs``, ``accuracy`` and ``loss`` on the validation split, in the order of the trainings."""

    @property
    def epochs(self) -> int:
        """The epochs of all trainings together."""
        return sum(row["epochs"] for row in self.trainings)

    def rounds(self) -> list[dict[str, Any]]:
        """Return the trainings of equal length together, the best first: ``epochs`` and ``results``."""
        lengths = sorted({row["epochs"] for row in self.trainings})
        return [{"epochs": epochs, "results": self._ranked(epochs)} for epochs in lengths]

    def _ranked(self, epochs: int) -> list[dict[str, Any]]:
        rows = [row for row in self.trainings if row["epochs"] == epochs]
        results = [{key: row[key] for key in ("setting", "accuracy", "loss")} for row in rows]
        return sorted(results, key=lambda result: (-result["accuracy"], result["loss"]))


def rungs(settings: int, epochs: int) -> list[int]:
    """Return the lengths of the trainings in which settings are compared, in epochs, the shortest first.

    There are as many as it takes to get from ``settings`` to one by halves. If every second setting goes on to the
    next length, each length costs the same, and all together about one training of ``epochs``.
    """
    count = max(math.ceil(math.log2(settings)), 1)
    remaining = [math.ceil(settings / HALF**number) for number in range(count)]
    return sorted({max(round(epochs / (count * tried)), 1) for tried in remaining})


def expected(settings: int, epochs: int) -> int:
    """Return about how many epochs all trainings of a search take, if the better half always goes on."""
    return sum(length * math.ceil(settings / HALF**number) for number, length in enumerate(rungs(settings, epochs)))


def halve(
    names: Sequence[str],
    lengths: Sequence[int],
    train: Callable[[str, int], Mapping[str, Any] | None],
    go_on: Callable[[str, int], bool] = lambda name, epochs: True,
) -> Halving:
    """Train settings for the first of the ``lengths``, those that validate better for the next, and so on.

    ``train`` returns ``accuracy`` and ``loss`` on the validation split after so many epochs from scratch. The settings
    come in the given order: a setting trains longer if it is in the better half of those that trained as long so far.
    Before each training but the first, ``go_on`` says whether there is time for it. Where ``train`` returns None, the
    setting trains no longer.
    """
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=HALF)
    halving = Halving("")

    def objective(trial: optuna.Trial) -> float:
        name = names[trial.number]
        value = -math.inf
        for number, epochs in enumerate(lengths):
            if halving.trainings and not go_on(name, epochs):
                break
            score = train(name, epochs)
            if score is None:
                break
            halving.trainings.append({"setting": name, "epochs": epochs, **score})
            value = score["accuracy"] - LOSS_COUNTS * min(score["loss"], 1e3)
            trial.report(value, step=HALF**number)
            if trial.should_prune():
                break
        return value

    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0), pruner=pruner)
        study.optimize(objective, n_trials=len(names))
    finally:
        optuna.logging.set_verbosity(level)
    longest = max((row["epochs"] for row in halving.trainings), default=0)
    last = [row for row in halving.trainings if row["epochs"] == longest]
    if last:
        halving.best = max(last, key=lambda row: (row["accuracy"], -row["loss"]))["setting"]
    return halving


def halve_by_length(
    names: Sequence[str], lengths: Sequence[int], train: Callable[[Sequence[tuple[str, int]]], Sequence[dict[str, Any]]]
) -> Halving:
    """Return what `halve` returns, with all trainings of one length in one call of ``train``.

    Whether a setting trains longer depends on the trainings of the same length alone, so that those of the next length
    are known when these are done, and do not depend on each other.
    """
    scores: dict[tuple[str, int], dict[str, Any]] = {}
    while True:
        wanted: list[tuple[str, int]] = []

        def known(name: str, epochs: int, wanted: list[tuple[str, int]] = wanted) -> dict[str, Any] | None:
            if (name, epochs) not in scores:
                wanted.append((name, epochs))
            return scores.get((name, epochs))

        halving = halve(names, lengths, known)
        if not wanted:
            return halving
        scores.update(zip(wanted, train(wanted), strict=True))


def choose(
    run: Run, settings: Mapping[str, Distiller], teacher: Network, student: Network | None
) -> tuple[Distiller, dict[str, Any]]:
    """Return the setting that validates best, and a report of the trainings and their cost as plain data.

    ``settings`` are distillers by the text of their options. Every training starts from scratch, with the same seed and
    with the learning rate's schedule over its own epochs. The report holds ``chosen``, ``rounds`` (the trainings of one
    length each), ``epochs`` (of all trainings) and ``seconds``.

    Raises:
        UsageError: there are no epochs, so that no setting is trained.
    """
    if run.training.epochs < 1:
        raise UsageError("--search: with --epochs 0 there is nothing to choose by; give --epochs of 1 or more")
    started = time.perf_counter()

    def trial(name: str, epochs: int, title: str, run: Run) -> dict[str, Any]:
        inner = run.sub_run(title, dataclasses.replace(run.training, epochs=epochs))
        score = inner.evaluate(settings[name].distill(inner, teacher, student))
        return {"accuracy": score["accuracy"], "loss": score["loss"]}

    def train(trials: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        titles = [f"search {name} {_epochs(epochs)}" for name, epochs in trials]
        tasks = {title: partial(trial, *asked, title) for title, asked in zip(titles, trials, strict=True)}
        scores = [*run.each(tasks).values()]
        for (name, epochs), score in zip(trials, scores, strict=True):
            say(f"search: {name} reaches {score['accuracy']:.4f} on validation images after {_epochs(epochs)}")
        return scores

    halving = halve_by_length([*settings], rungs(len(settings), run.training.epochs), train)
    seconds = round(time.perf_counter() - started, 1)
    best = halving.best
    say(
        f"search: {best}; it cost {_epochs(halving.epochs)} and {seconds} s; the training has "
        f"{_epochs(run.training.epochs)}"
    )
    report = {"chosen": best, "rounds": halving.rounds(), "epochs": halving.epochs, "seconds": seconds}
    return settings[best], report


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
