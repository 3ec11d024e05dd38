"""The trackers of a run: opened before it trains, told by the hooks, closed when it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kdtool.errors import UsageError
from kdtool.plugins.entry_points import manager
from kdtool.plugins.tracker import Tracked, flat, trackers
from kdtool.training.run import Run

# What is no option: paths of other files, and what is measured.
LEFT_OUT = ("versions", "date", "output", "inputs", "line", "splits")


@contextlib.contextmanager
def tracking(run: Run, track: str | None, target: Path, *, resumed: bool) -> Iterator[None]:
    """Show the run in the programs that ``track`` names, as ``--track`` takes them, while the block runs.

    Raises:
        UsageError: there is no such tracker, it is not installed, or it cannot write.
    """
    if not track:
        yield
        return
    if not isinstance(track, str):
        raise UsageError(f"--track: expected a text such as tensorboard:logs,mlflow, got {track!r}")
    entry = {key: value for key, value in run.entry.as_data().items() if key not in LEFT_OUT}
    parameters = {name: value for name, value in flat(entry).items() if ".splits." not in name}
    about = Tracked(target.stem, run.directory, target, parameters, resumed)
    opened = []
    failed = True
    try:
        for tracker in trackers(track):
            tracker.open(about)
            opened.append(tracker)
            manager().register(tracker)
        yield
        failed = False
    finally:
        for tracker in opened:
            manager().unregister(tracker)
            tracker.close(failed=failed)
