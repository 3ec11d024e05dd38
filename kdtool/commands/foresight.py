"""What a command says before it trains, the bar of the whole command, and the dry run."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kdtool.commands.processes import check_step
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.size import measure
from kdtool.training.foresight.forecast import Forecast, read_forecast, write_forecast
from kdtool.training.foresight.rehearsal import Closing, rehearse
from kdtool.training.foresight.trial import Trial
from kdtool.training.options import Training
from kdtool.training.run import Run
from kdtool.utils.processes import count, decided, rank, together
from kdtool.utils.progress import command_progress, say
from kdtool.utils.screens import in_notebook, in_terminal
from kdtool.utils.verbosity import is_announcing, is_quiet, is_verbose

Work = Callable[[Run], Network]
"""What a command does in its run: it trains and returns the network that is to be written."""


@contextlib.contextmanager
def foreseen(run: Run, work: Work, target: Path, closing: Closing | None = None) -> Iterator[None]:
    """Say what the run will do and cost, and show the progress of the whole command while the block runs.

    ``closing`` is what the command then does with the file of the result.
    A run that is resumed was foreseen when it began, if it had as many processes. From Python, nothing is said where
    nobody looks on.
    """
    trial = Trial.pending()
    looked_on = trial is not None or decided(_is_looked_on)
    forecast = decided(lambda: read_forecast(run.directory)) if looked_on and trial is None else None
    if looked_on and (forecast is None or forecast.processes != count()):
        forecast, _ = rehearse(work, run, closing=closing)
        if trial is not None:
            trial.judge(forecast, lambda: rehearse(work, run, closing=closing)[0])
        if forecast.reason and not forecast.phases:  # what is wrong is reported by the run itself
            forecast = None
        elif rank() == 0:
            write_forecast(run.directory, forecast)
    if forecast is None:
        yield
        return
    tell(forecast, target)
    with command_progress(target.name, [(phase.name, phase.cost.seconds) for phase in forecast.phases]):
        yield


def _is_looked_on() -> bool:
    return is_announcing() or (not is_quiet() and (in_terminal() or in_notebook()))


def tell(forecast: Forecast, target: Path) -> None:
    """Say what a command will do and cost."""
    free = shutil.disk_usage(target.absolute().parent).free
    for line in [*forecast.lines(target, free), *(forecast.table() if is_verbose() else [])]:
        say(line)


def dry_run(work: Work, target: Path, *, closing: Closing | None = None, **about: Any) -> Checkpoint:
    """Say what a command would do and cost, and return the checkpoint that it would make, without training.

    ``about`` are the arguments of `Run`, ``closing`` is what the command then does with the file of the result. The
    last entry of the checkpoint's history holds the ``forecast``.

    Raises:
        Error: the command cannot train, or what it makes depends on a training.
    """
    training: Training = about["training"]
    with tempfile.TemporaryDirectory() as folder, together(training.device):
        check_step(training)
        run = Run(Path(folder), **about)
        forecast, network = rehearse(work, run, strict=True, closing=closing)
        if (trial := Trial.pending()) is not None:
            trial.judge(forecast, lambda: rehearse(work, run, closing=closing)[0])
    tell(forecast, target)
    run.record(forecast=forecast.as_data(), size=measure(network or about["parent"].network))
    history = [*(run.parent.history if run.parent else []), run.entry.as_data()]
    spec = run.data.spec if about["data"] is not None else None
    return Checkpoint(network or about["parent"].network, spec, [], history)
