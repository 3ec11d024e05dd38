"""The check of a tracker, for the tests of a plugin: ``check_tracker(MyTracker)``."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdtool.plugins.entry_points import reason_of
from kdtool.plugins.tracker import Tracked, Tracker
from kdtool.testing.require import require


def check_tracker(tracker: type[Tracker] | Tracker) -> None:
    """Check that a tracker records a run, and the same run again when it is resumed and fails.

    A class is checked without a place, an instance with its own. The current directory is an empty one meanwhile.

    Raises:
        AssertionError: a method of the tracker fails, it prints on stdout, or it does not say what it needs.
    """
    cls, place = (tracker, "") if isinstance(tracker, type) else (type(tracker), tracker.place)
    require(issubclass(cls, Tracker), f"{cls.__name__} is not a Tracker")
    require((cls.__doc__ or "").strip() and cls.__doc__ != Tracker.__doc__, f"{cls.__name__} has no docstring")
    require(cls.install or not cls.needs, f"{cls.__name__} needs {cls.needs}, and says no command that installs it")
    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name), contextlib.redirect_stdout(printed):
        folder = Path(name)
        (folder / "student.run").mkdir()
        for resumed in (False, True):
            _record(cls(place), folder, resumed=resumed)
    require(not printed.getvalue(), f"{cls.__name__} printed {printed.getvalue()[:60]!r} on stdout, which has results")


def _record(tracker: Tracker, folder: Path, *, resumed: bool) -> None:
    options: dict[str, str | int | float | bool] = {"method": "kd", "training.epochs": 2, "training.lr": 0.1}
    _call(tracker.start, Tracked("student", folder / "student.run", folder / "student.pt", options, resumed))
    for epoch in (1, 2):
        _call(tracker.numbers, {"M1 from M0/loss": 1.5, "M1 from M0/val_accuracy": 0.5}, epoch)
    _call(tracker.numbers, {"M1 from M0/kept/accuracy": 0.5}, 2)
    _call(tracker.facts, {"student/checkpoint": str(folder / "student.pt")})
    _call(tracker.finish, resumed)


def _call(method: Callable[..., object], *arguments: Any) -> None:
    try:
        method(*arguments)
    except Exception as error:
        raise AssertionError(f"{method.__qualname__} failed: {reason_of(error)}") from error
