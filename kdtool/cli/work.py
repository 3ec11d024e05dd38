"""The inputs and outputs of a step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Work:
    """The inputs and outputs of one step, known when all steps are planned."""

    checkpoints: tuple[Path, ...]
    outputs: tuple[Path, ...]
    """The files that it writes: one, none, or one for each checkpoint."""
    force: bool
    resume: bool
    last: bool
    """Whether no step follows, so that the step prints its result on stdout."""
    dry_run: bool = False
    """Only say what the step would do; its outputs are stand-ins for the steps after it."""

    @property
    def output(self) -> Path | None:
        """The file that it writes, the first if there are several, or None."""
        return self.outputs[0] if self.outputs else None

    @property
    def only_said(self) -> dict[str, Any]:
        """The argument of the Python function that says what would be done; nothing but in a dry run."""
        return {"dry_run": True} if self.dry_run else {}

    @property
    def result(self) -> str | None:
        """The paths of the written files, one per line, for stdout; None if another step follows."""
        return "\n".join(map(str, self.outputs)) if self.last else None
