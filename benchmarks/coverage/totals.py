"""How much of the list works, beside what is promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.coverage.networks import EDITS, USED, USES
from benchmarks.coverage.results import Result

GOALS = {"halve": 97, "halve4": 93, "depth": 95, "structured": 80, "rebuild": 100, "train": 100, "onnx": 100}
"""Percent that have to be ok: of the networks, of those with stages, and of the results of edits."""


@dataclass(frozen=True)
class Total:
    """How many of a column's attempts came out how."""

    name: str
    title: str
    ok: int
    refused: int
    failed: int

    @property
    def tried(self) -> int:
        """All attempts; a network without stages is none where stages are cut."""
        return self.ok + self.refused + self.failed

    @property
    def percent(self) -> float:
        """Percent that are ok."""
        return 100 * self.ok / self.tried if self.tried else 0.0

    @property
    def goal(self) -> int | None:
        """Percent that have to be, or None where nothing is promised."""
        return GOALS.get(self.name)

    @property
    def reached(self) -> bool:
        """Whether the goal is reached, where there is one."""
        return self.goal is None or self.percent >= self.goal


def totals(results: Sequence[Result]) -> list[Total]:
    """Return the totals of all columns."""
    edits = [_total(name, title, results, [name]) for name, title in EDITS.items()]
    uses = [_total(name, title, results, [f"{edit}.{name}" for edit in USED]) for name, title in USES.items()]
    return edits + uses


def _total(name: str, title: str, results: Sequence[Result], cells: Sequence[str]) -> Total:
    found = [result.status(cell) for result in results for cell in cells]
    return Total(name, title, *(found.count(status) for status in ("ok", "refused", "failed")))
