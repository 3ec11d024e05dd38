"""What the history of a checkpoint holds of one command."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kdtool.utils.files import read_text
from kdtool.utils.processes import collected
from kdtool.utils.strict_json import dumps

# The file of a run with the time that its processes took so far, those that were killed too.
SPENT = "spent.json"


class Clock:
    """The time that a command took, over all processes that worked on it.

    A process that is killed loses at most what it did since `keep`, which the run calls after each epoch.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """Go on from what earlier processes left in ``directory``; None if there is no such place."""
        self.path = None if directory is None else directory / SPENT
        self.before = {"seconds": 0.0, "cpu_seconds": 0.0} if self.path is None else _spent(self.path)
        self.start()

    def start(self) -> None:
        """Begin to count the time of this process."""
        self.started, self.used = time.perf_counter(), time.process_time()

    @property
    def spent(self) -> dict[str, float]:
        """The ``seconds``, and the ``cpu_seconds`` of the processes."""
        now = {"seconds": time.perf_counter() - self.started, "cpu_seconds": time.process_time() - self.used}
        return {name: round(self.before[name] + seconds, 1) for name, seconds in now.items()}

    def keep(self) -> None:
        """Write down the time for a later process; it is not worth an error, nor a wait for the disk."""
        if self.path is None:
            return
        temporary = self.path.with_name(f".{SPENT}.tmp")
        with contextlib.suppress(OSError):
            try:
                temporary.write_text(dumps(self.spent), encoding="utf-8")
                os.replace(temporary, self.path)
            finally:  # Ctrl-C may come between the two
                temporary.unlink(missing_ok=True)


def _spent(path: Path) -> dict[str, float]:
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        content = None
    told = content if isinstance(content, dict) else {}
    numbers = {name: told.get(name) for name in ("seconds", "cpu_seconds")}
    return {
        name: float(number) if isinstance(number, int | float) and 0 <= number < math.inf else 0.0
        for name, number in numbers.items()
    }


@dataclass
class HistoryEntry:
    """One command: what was asked for, and the facts that it recorded while it ran.

    A checkpoint holds it as plain data, see `as_data`.
    """

    command: str
    """The subcommand, such as ``distill``."""
    line: str
    """The command as it would be typed, quoted for a shell."""
    method: str
    """The name of the method, or of the source of a teacher."""
    options: Mapping[str, Any]
    """All options of the method, with their defaults."""
    training: Mapping[str, Any]
    """All options of the training; empty where nothing was trained."""
    data: Mapping[str, Any]
    """The description of the data set; empty where there was none."""
    inputs: list[dict[str, Any]]
    """The role, the path and the fingerprint of the weights of every checkpoint that was read."""
    output: str
    versions: Mapping[str, str]
    """Of kdtool, torch, and the distributions of other plugins that took part."""
    date: str
    """When the command began, in UTC by ISO 8601."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was recorded, by name."""
    clock: Clock = field(default_factory=Clock)
    """The time that the command took; not part of the entry."""

    def record(self, **facts: Any) -> None:
        """Add facts as plain data; a fact of the same name is replaced.

        Raises:
            ValueError: a name is one of the entry's own fields.
        """
        taken = {field.name for field in fields(self)} & facts.keys()
        if taken:
            raise ValueError(f"the history entry has a field {sorted(taken)[0]!r} of its own; use another name")
        self.facts |= facts

    def record_repair(self, about: Mapping[str, Any]) -> None:
        """Add what one of the command's repairs did to the list ``repair``."""
        self.record(repair=[*self.facts.get("repair", ()), dict(about)])

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Record how many ``seconds`` the block took, and how many ``cpu_seconds`` of its processes.

        Those of processes that were killed before count too.
        """
        self.clock.start()
        yield
        spent = self.clock.spent
        spent["cpu_seconds"] = round(sum(collected(spent["cpu_seconds"])), 1)
        self.record(**spent)

    def as_data(self) -> dict[str, Any]:
        """Return the entry as plain data: its fields, and beside them what was recorded."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("facts", "clock")}
        return copy.deepcopy({**own, **self.facts})
