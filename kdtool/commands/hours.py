"""``--hours`` of a training: the number of epochs that takes about so long here, by a few timed steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdtool.errors import UsageError
from kdtool.models.checkpoint import Checkpoint
from kdtool.training.foresight.forecast import Cost
from kdtool.training.options import TimeOptions, Training
from kdtool.training.run_directory import directory_of, read_run
from kdtool.utils.formatting import counted, shown_duration
from kdtool.utils.processes import decided, together
from kdtool.utils.progress import progress, say
from kdtool.utils.verbosity import QUIET, verbosity

SPARE = 0.95
"""The part of the time that is planned; the rest is for reading images and for what other programs take."""

TRIES = 3
"""The most numbers of epochs whose time is estimated. It is not quite proportional to them: views of the images recur
more often in a long training, and the recipe follows the number of steps."""

MOST_EPOCHS = 10_000


def with_epochs(
    options: Mapping[str, Any], rehearsed: Callable[..., Checkpoint], target: Path, *, resume: bool
) -> dict[str, Any]:
    """Return the options of a command with ``epochs`` in the place of ``hours``; without ``hours`` they stay.

    ``rehearsed`` is the command as a dry run. A run that is resumed keeps the epochs with which it began.

    Raises:
        UsageError: both are given, not even one epoch fits, or the command's time cannot be foreseen.
        Error: the command cannot train.
    """
    rest = {name: value for name, value in options.items() if name != "hours"}
    hours = TimeOptions(hours=options.get("hours")).hours
    if hours is None:
        return rest
    if "epochs" in rest:
        raise UsageError("--hours and --epochs both say how long the training is; give one of them")
    started = time.perf_counter()
    with together(rest.get("device", "auto")):
        epochs = decided(lambda: _begun(target)) if resume else None
        if epochs is None:
            with progress("timing epochs", TRIES) as advance:

                def seconds_of(epochs: int) -> float:
                    with verbosity(QUIET):
                        seconds = _seconds(rehearsed(dry_run=True, **rest, epochs=epochs))
                    advance()
                    return seconds

                left = decided(lambda: SPARE * hours * 3600 - (time.perf_counter() - started))
                epochs, seconds = epochs_within(left, seconds_of)
            if epochs < 1:
                least = (seconds + time.perf_counter() - started) / SPARE / 3600
                raise UsageError(
                    f"--hours {hours:g}: one epoch takes about {shown_duration(seconds)}; give --hours "
                    f"{least + 0.005:.2f} or more, or --subset"
                )
            say(f"--hours {hours:g}: {counted(epochs, 'epoch')}, which take about {shown_duration(seconds)} here")
    return {**rest, "epochs": epochs}


def epochs_within(seconds: float, seconds_of: Callable[[int], float]) -> tuple[int, float]:
    """Return the epochs that fit into ``seconds``, and about what these take; 0 and the time of one if none fits.

    ``seconds_of`` estimates what a number of epochs takes; it is asked up to three times. The time is taken for a
    straight line through the two estimates that are nearest to ``seconds``; no epochs take none.
    """
    known = {0: 0.0}
    epochs = Training().epochs
    for _ in range(TRIES):
        known[epochs] = seconds_of(epochs)
        one, two = sorted(sorted(known, key=lambda count: abs(known[count] - seconds))[:2])
        if known[two] <= known[one]:  # a busy machine: the longer training seemed to take less
            one = 0
        each = (known[two] - known[one]) / (two - one)
        epochs = min(max(int(two + (seconds - known[two]) / max(each, 1e-9)), 1), MOST_EPOCHS)
        if epochs in known:
            break
    took = known.get(epochs, known[two] + (epochs - two) * each)
    if took > seconds and epochs > 1:  # estimates of a busy machine that contradict each other
        epochs, took = max(int(epochs * seconds / took), 1), seconds
    return (epochs if took <= seconds else 0), took


def _seconds(checkpoint: Checkpoint) -> float:
    """Return what a dry run says that its command takes."""
    forecast = checkpoint.history[-1].get("forecast")
    if not forecast or not forecast["phases"]:
        raise UsageError("--hours: nothing is trained; leave it out")
    if forecast["reason"]:
        raise UsageError(f"--hours: how long this takes is not known beforehand ({forecast['reason']}); give --epochs")
    return Cost(**forecast["cost"]).seconds


def _begun(target: Path) -> int | None:
    """Return the epochs with which the run that makes ``target`` began, or None if there is no such run."""
    about = read_run(directory_of(target))
    epochs = about and about["training"].get("epochs")
    return epochs if isinstance(epochs, int) else None
