"""What the history of a checkpoint holds of one command."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


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
    """Of kdtool and torch."""
    date: str
    """When the command began, in UTC by ISO 8601."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was recorded, by name."""

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
        """Record how many seconds the block took, and how many seconds of CPU time this process used in it."""
        started, used = time.perf_counter(), time.process_time()
        yield
        self.record(seconds=round(time.perf_counter() - started, 1), cpu_seconds=round(time.process_time() - used, 1))

    def as_data(self) -> dict[str, Any]:
        """Return the entry as plain data: its fields, and beside them what was recorded."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "facts"}
        return copy.deepcopy({**own, **self.facts})
