"""``--processes auto``: whether a training is faster in several processes, from timed steps of one and of several.

The processes of a trial are those that will train. They take some steps together and then the first one takes them
alone, with all threads. If it pays and no larger number is to be tried, the training goes on at once; else they end in
order, and the process that started them goes on by what they found. Nothing is imported from torch unless there is a
trial.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from kdtool.errors import Error
from kdtool.utils.files import read_text, write_text
from kdtool.utils.processes import count, decided, rank
from kdtool.utils.progress import say
from kdtool.utils.strict_json import dumps

if TYPE_CHECKING:
    from kdtool.training.foresight.forecast import Forecast

VARIABLE = "KDTOOL_TRIAL"
"""The variable of the environment in which the processes of a trial find it."""

# More processes take more memory, so they have to be faster by this factor.
WORTH = 1.05

_held: list[tuple[TextIO, io.StringIO]] = []
"""stderr, and what would have been printed there: it is printed if the training goes on in these processes."""


class TrialEnded(Error):
    """The processes of a trial were not the last word; what they found is written. No message is printed."""

    exit_code = 0


@dataclass(frozen=True)
class Found:
    """What a trial found."""

    seconds: float | None
    """The forecast of the training in all processes; None if it cannot be timed."""
    alone: float | None
    """The forecast of the training in one process."""
    goes_on: bool
    """Whether the processes of the trial train."""
    reason: str = ""
    """Why it cannot be timed."""

    @classmethod
    def read(cls, path: Path) -> Found | None:
        """Return what a trial wrote; None if no training began."""
        try:
            return cls(**json.loads(read_text(path)))
        except FileNotFoundError:
            return None


@dataclass(frozen=True)
class Trial:
    """A number of processes that is tried."""

    file: str
    """Where the first process writes what was found."""
    alone: float | None
    """The forecast in one process, if an earlier trial has it."""
    best: float | None
    """The least forecast so far."""
    last: bool
    """Whether no larger number of processes comes after this one."""
    threads: int | None
    """How many threads a process alone may use; None: as many as each of several."""

    @classmethod
    def pending(cls) -> Trial | None:
        """Return the trial that this process is in, or None."""
        text = os.environ.get(VARIABLE)
        return cls(**json.loads(text)) if text else None

    def text(self) -> str:
        """Return the value of `VARIABLE`."""
        return dumps(asdict(self))

    def judge(self, forecast: Forecast, rehearse: Callable[[], Forecast]) -> None:
        """Decide by the forecast of all processes, and by that of ``rehearse`` in the first process alone.

        Raises:
            TrialEnded: the training does not go on in these processes.
        """
        if not forecast.phases or not forecast.cost.seconds:
            self.give_up(forecast.reason or "nothing is trained")
        seconds = forecast.cost.seconds
        alone = self.alone or decided(lambda: self._alone(rehearse))
        pays = (self.best or alone) > WORTH * seconds
        self._end(Found(seconds, alone, goes_on=pays and self.last))
        if not (pays and self.last):
            raise TrialEnded
        say(verdict(count(), seconds, alone))
        os.environ.pop(VARIABLE)
        release()

    def give_up(self, reason: str) -> None:
        """End the trial because these processes cannot train.

        Raises:
            TrialEnded: always.
        """
        self._end(Found(None, self.alone, goes_on=False, reason=reason))
        raise TrialEnded

    def _end(self, found: Found) -> None:
        if rank() == 0:
            write_text(Path(self.file), dumps(asdict(found)))
        if not found.goes_on:
            _held.clear()

    def _alone(self, rehearse: Callable[[], Forecast]) -> float:
        """Return the forecast of this process alone, with the number of threads that is best."""
        import torch

        before, named = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
        if self.threads is not None:
            os.environ.pop("OMP_NUM_THREADS", None)
            torch.set_num_threads(self.threads)
        try:
            return rehearse().cost.seconds
        finally:
            torch.set_num_threads(before)
            if named is not None:
                os.environ["OMP_NUM_THREADS"] = named


def verdict(number: int, seconds: float, alone: float) -> str:
    """Return the line about several processes that are faster than one, from their forecasts in seconds."""
    return f"trains in {number} processes, {alone / seconds:.2f}x as fast as in one (--processes 1: in one)"


def hold() -> None:
    """Keep what is printed on stderr until `release`: a training that does not go on would print it twice."""
    _held.append((sys.stderr, io.StringIO()))
    sys.stderr = _held[-1][1]


def release() -> None:
    """Print what was kept, and go on with stderr itself."""
    if _held:
        stream, kept = _held.pop()
        sys.stderr = stream
        stream.write(kept.getvalue())
        stream.flush()
