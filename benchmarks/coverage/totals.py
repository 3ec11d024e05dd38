"""The share of the list that works, compared with the goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.coverage.networks import EDITS, USED, USES
from benchmarks.coverage.results import Result

GOALS = {"halve": 97, "halve4": 93, "depth": 95, "structured": 80, "rebuild": 100, "train": 100, "onnx": 100}
"""Percent that must be ok: of the networks (for ``depth``, of those with stages), or of the results of edits."""


@dataclass(frozen=True)
class Total:
    """The outcomes of the attempts of a column."""

    name: str
    title: str
    ok: int
    refused: int
    failed: int

    @property
    def tried(self) -> int:
        """The number of attempts; ``depth`` on a network without stages is not an attempt."""
        return self.ok + self.refused + self.failed

    @property
    def percent(self) -> float:
        """The percentage of attempts that are ok."""
        return 100 * self.ok / self.tried if self.tried else 0.0

    @property
    def goal(self) -> int | None:
        """The percentage that must be ok, or None if there is no goal."""
        return GOALS.get(self.name)

    @property
    def reached(self) -> bool:
        """Whether the goal is reached, or there is none."""
        return self.goal is None or self.percent >= self.goal


def totals(results: Sequence[Result]) -> list[Total]:
    """Return the totals of all columns."""
    edits = [_total(name, title, results, [name]) for name, title in EDITS.items()]
    uses = [_total(name, title, results, [f"{edit}.{name}" for edit in USED]) for name, title in USES.items()]
    return edits + uses


def _total(name: str, title: str, results: Sequence[Result], cells: Sequence[str]) -> Total:
    statuses = [result.status(cell) for result in results for cell in cells]
    return Total(name, title, *(statuses.count(status) for status in ("ok", "refused", "failed")))
