"""The contract of a tracker, which shows a training in another program, and the value of ``--track``."""

from __future__ import annotations

import importlib
import importlib.util
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kdtool.errors import Error, UsageError, nearest
from kdtool.plugins.containment import importing
from kdtool.plugins.entry_points import TRACKERS, BrokenPlugin, Plugin, installed, reason_of
from kdtool.plugins.hookspecs import hookimpl
from kdtool.plugins.method_code import not_overridden
from kdtool.utils.formatting import printable
from kdtool.utils.progress import say
from kdtool.utils.strict_json import plain


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a run before it trains."""

    name: str
    """The name of the output without its suffix, such as ``student``."""
    directory: Path
    """The directory of the run, where a tracker may keep what it needs to go on after a kill."""
    output: Path
    parameters: Mapping[str, str | int | float | bool]
    """The command with all its options, flat: ``training.epochs``."""
    resumed: bool


class Tracker:
    """Show the metrics of a run in another program.

    Override `start`, `numbers` and `finish`, and `facts` if the program shows texts. The entry point is in the group
    ``kdtool.trackers`` and names the class; its name is what users type after ``--track``. A tracker that fails while
    a network trains does not end the training.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[str] = ""
    """The module that has to be installed."""
    install: ClassVar[str] = ""
    """What a user types to install it, such as ``pip install 'kdtool[tensorboard]'``."""

    def __init__(self, place: str = "") -> None:
        """Track to ``place``, what the user typed after the colon: a directory, an address or a project."""
        self.place, self.failed, self.run_directory = place, False, Path()

    def start(self, tracked: Tracked) -> None:
        """Open the program's record of a run. Any exception is shown to the user, and nothing is trained."""
        raise not_overridden(self, "start")

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers of an epoch or of a result; names are such as ``M1 from M0/val_accuracy``."""
        raise not_overridden(self, "numbers")

    def facts(self, values: Mapping[str, str]) -> None:
        """Record texts, such as the path of the checkpoint."""

    def finish(self, failed: bool) -> None:
        """Close the record."""

    def open(self, tracked: Tracked) -> None:
        """Start tracking.

        Raises:
            UsageError: the program is not installed, or cannot write.
        """
        self.run_directory = tracked.directory
        try:
            self.start(tracked)
        except Error:
            raise
        except Exception as error:  # of a library, in any way
            reason = printable(reason_of(error), 300).rstrip(".")
            raise UsageError(f"--track {self.name}: {reason}; or leave --track (or KDTOOL_TRACK) out") from error

    def close(self, *, failed: bool) -> None:
        """End tracking."""
        self._guarded(self.finish, failed)

    @hookimpl
    def epoch_ended(self, run: Any, phase: str, epoch: int, metrics: dict[str, Any]) -> None:
        """Record the metrics of an epoch; those of a run inside the run, such as a trial of a search, by its name."""
        inner = "" if run.directory == self.run_directory else f"{run.directory.name}/"
        self._guarded(self.numbers, _numbers(metrics, f"{inner}{phase}", leave_out=("phase", "epoch")), epoch)

    @hookimpl
    def phase_ended(self, run: Any, phase: str, metrics: dict[str, Any]) -> None:
        """Record the metrics of the epoch that is kept."""
        inner = "" if run.directory == self.run_directory else f"{run.directory.name}/"
        best = metrics.get("best_epoch", 0)
        kept: dict[str, Any] = {key: metrics[key] for key in ("accuracy", "loss") if key in metrics}
        self._guarded(self.numbers, _numbers(kept, f"{inner}{phase}/kept"), best)

    @hookimpl
    def checkpoint_saved(self, path: str, metrics: list[dict[str, Any]]) -> None:
        """Record where a checkpoint is, and its scores."""
        name = Path(path).stem
        self._guarded(self.facts, {f"{name}/checkpoint": path})
        for scores in metrics:
            numbers = {key: value for key, value in scores.items() if key in ("accuracy", "loss")}
            self._guarded(self.numbers, _numbers(numbers, f"{name}/{scores['split']}"), 0)

    def _guarded(self, record: Any, *about: Any) -> None:
        if self.failed:
            return
        try:
            record(*about)
        except Exception as error:  # hours of training are worth more than a curve
            self.failed = True
            say(f"--track {self.name}: {printable(reason_of(error), 300)}; the training goes on without it")


def _numbers(metrics: Mapping[str, Any], prefix: str, leave_out: tuple[str, ...] = ()) -> dict[str, float]:
    values = {key: value for key, value in plain(metrics).items() if key not in leave_out}
    return {
        f"{prefix}/{key}": float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def trackers(text: str, said: str = "--track") -> list[Tracker]:
    """Return the trackers of a text such as ``tensorboard:logs,wandb``; an error names where it was ``said``.

    Raises:
        UsageError: there is no such tracker, it is not installed or broken, or it is named twice.
    """
    made: list[Tracker] = []
    known = {plugin.name: plugin for plugin in installed() if plugin.kind == TRACKERS}
    words: list[str] = []
    for word in text.split(","):
        # A place may hold a comma: what follows it belongs to the place, unless it is a tracker.
        if words and ":" in words[-1] and word.strip().partition(":")[0] not in known:
            words[-1] += f",{word}"
        else:
            words.append(word)
    for word in words:
        name, _, place = word.strip().partition(":")
        if name not in known:
            hint = nearest(name, known) or f"; the trackers are {', '.join(sorted(known))}"
            raise UsageError(f"{said} {printable(name)}: there is no such tracker{hint}")
        if name in [tracker.name for tracker in made]:
            raise UsageError(f"{said}: {name} is named twice; leave one out")
        made.append(_loaded(known[name], said)(place))
    return made


def tracker_class(plugin: Plugin) -> type[Tracker]:
    """Import a plugin and return the class of its tracker, with the name of its entry point.

    Raises:
        BrokenPlugin: it fails to import, or names something else.
    """
    where = f"{plugin.module}:{plugin.attribute}"
    try:
        with importing():
            cls = operator.attrgetter(plugin.attribute)(importlib.import_module(plugin.module))
    except (Exception, SystemExit) as error:  # a plugin may fail in any way, and the tool must go on
        raise BrokenPlugin(f"{where}: {reason_of(error)}") from error
    if not (isinstance(cls, type) and issubclass(cls, Tracker)):
        raise BrokenPlugin(f"{where}: is not a tracker; name a class that derives from kdtool.plugins.Tracker")
    cls.name = plugin.name
    return cls


def _loaded(plugin: Plugin, said: str) -> type[Tracker]:
    try:
        cls = tracker_class(plugin)
    except BrokenPlugin as error:
        raise BrokenPlugin(f"{plugin}: {error}") from error
    if cls.needs and importlib.util.find_spec(cls.needs) is None:
        raise UsageError(f"{said} {plugin.name}: {cls.needs} is not installed; {cls.install}")
    return cls


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Return nested plain data as one dictionary, with dots between the names; None and empty values are left out."""
    result: dict[str, str | int | float | bool] = {}
    for key, value in plain(data).items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        elif value is not None and value != [] and value != "":
            result[prefix + key] = value if isinstance(value, str | int | float | bool) else str(value)
    return result
