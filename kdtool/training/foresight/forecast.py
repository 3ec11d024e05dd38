"""What a command will do and cost, as plain data and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdtool.utils.files import write_text
from kdtool.utils.formatting import counted, shown_bytes, shown_duration
from kdtool.utils.forms import COUNT, FLAG, SECONDS, TEXT, Each, misfit
from kdtool.utils.strict_json import dumps, load

FILE = "forecast.json"
"""The file of a run with its forecast."""

COST = {"seconds!": SECONDS, "cpu_seconds!": SECONDS}

FORM = {
    "phases!": Each({"name!": TEXT, "epochs!": COUNT, "steps!": COUNT, "cost!": COST}),
    **{"cost!": COST, "at_most": FLAG, "reason": TEXT},
    **dict.fromkeys(("memory_bytes", "gpu_bytes", "disk_bytes", "timed_steps", "processes"), COUNT),
}
"""The form of that file, see `misfit`."""


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and seconds of CPU time of all processes; on a busy machine the first may be more."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of both."""
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def __sub__(self, other: Cost) -> Cost:
        """Return the cost without that of a part of it."""
        return Cost(self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds)

    def __mul__(self, times: float) -> Cost:
        """Return the cost of so many repetitions."""
        return Cost(self.seconds * times, self.cpu_seconds * times)


NOTHING = Cost()


@dataclass(frozen=True)
class ForeseenPhase:
    """One phase: its name, its epochs, the steps of each, and what it costs (0 where nothing was timed)."""

    name: str
    epochs: int
    steps: int
    cost: Cost = NOTHING


@dataclass(frozen=True)
class Forecast:
    """What a command will do and cost."""

    phases: Sequence[ForeseenPhase]
    cost: Cost
    """Of the whole command: the phases, the measurements between them, and edits of the structure."""
    memory_bytes: int = 0
    """The most that the processes took in the rehearsal, which had the batches, the networks and the optimiser."""
    gpu_bytes: int = 0
    disk_bytes: int = 0
    """The most that the run takes, with its state, the cache and the checkpoints."""
    at_most: bool = False
    """Whether a phase may end early."""
    timed_steps: int = 0
    reason: str = ""
    """Why what follows the phases cannot be foreseen; empty if all is known."""
    processes: int = 1
    """How many processes train together."""

    @property
    def steps(self) -> int:
        """The number of steps of all phases."""
        return sum(phase.epochs * phase.steps for phase in self.phases)

    def as_data(self) -> dict[str, Any]:
        """Return plain data, with the number of all ``steps``."""
        return {**dataclasses.asdict(self), "steps": self.steps}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Forecast:
        """Return the forecast of `as_data`."""
        phases = [ForeseenPhase(**{**phase, "cost": Cost(**phase["cost"])}) for phase in data["phases"]]
        rest = {key: value for key, value in data.items() if key not in ("phases", "cost", "steps")}
        return cls(phases=phases, cost=Cost(**data["cost"]), **rest)

    def lines(self, target: Path, free_bytes: int | None = None) -> list[str]:
        """Return what is said before the training; ``free_bytes`` is the room on the disk of ``target``."""
        if not self.phases:
            return [f"makes {target.name} without training" + (f" ({self.reason})" if self.reason else "")]
        if not self.steps:
            return [f"makes {target.name} without training (--epochs 0): its weights are those that it begins with"]
        lines = [f"makes {target.name} {self._work()}"]
        if self.timed_steps:
            lines.append(self._costs())
        if free_bytes is not None and self.disk_bytes > free_bytes:
            lines.append(f"note: only {shown_bytes(free_bytes)} are free in {target.absolute().parent}")
        return lines

    def _work(self) -> str:
        epochs = sorted({phase.epochs for phase in self.phases})
        span = counted(epochs[0], "epoch") if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]} epochs"
        if len(self.phases) == 1:
            text = f"by {span} of {counted(self.phases[0].steps, 'step')}"
        else:
            text = f"in {len(self.phases)} phases of {span}, {self.steps:,} steps in all"
        if self.reason:
            return f"{text}; then come phases that cannot be foreseen ({self.reason})"
        return text

    def _costs(self) -> str:
        bound = "at most " if self.at_most else "at least " if self.reason else "about "
        gpu = f", {shown_bytes(self.gpu_bytes)} of the GPU's" if self.gpu_bytes else ""
        among = f" in {self.processes} processes" if self.processes > 1 else ""
        return (
            f"{bound}{shown_duration(self.cost.seconds)}{among}, {shown_bytes(self.memory_bytes)} of memory{gpu}, "
            f"{shown_bytes(self.disk_bytes)} of disk (from {counted(self.timed_steps, 'timed step')})"
        )

    def table(self) -> list[str]:
        """Return a line for each phase."""
        return [
            f"  {phase.name}: {counted(phase.epochs, 'epoch')} of {counted(phase.steps, 'step')}"
            + (f", about {shown_duration(phase.cost.seconds)}" if phase.cost.seconds else "")
            for phase in self.phases
        ]


def write_forecast(directory: Path, forecast: Forecast) -> None:
    """Write the forecast of a run into its directory."""
    write_text(directory / FILE, dumps(forecast.as_data(), indent=1) + "\n")


def read_forecast(directory: Path) -> Forecast | None:
    """Return the forecast of a run; None where there is none, or none that this release can read."""
    try:
        data = load(directory / FILE)
        return Forecast.from_data(data) if misfit(data, FORM) is None else None
    except (OSError, ValueError, TypeError):  # another release may have other keys
        return None
