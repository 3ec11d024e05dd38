"""The options of `kdtool compress`: the budget, the device that it means, and how much is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool.errors import UsageError, nearest
from kdtool.exporting.providers import PROVIDERS
from kdtool.plugins.budget import Budget, LatencyBudget, SizeBudget
from kdtool.plugins.entry_points import installed
from kdtool.plugins.options import Options, option
from kdtool.plugins.points import Points

if TYPE_CHECKING:
    from kdtool.distillation.distiller import Distiller

QUANTISED = "-int8.onnx"
"""How the file of a student in 8 bits ends, beside its checkpoint; as `kdtool export --int8` names it."""

KINDS = ("pruners", "refiners", "distillers")
"""The kinds of methods that propose."""


class BudgetOptions(Options):
    """Options of a compression: what the student may cost, on which device, and how much is tried."""

    max_latency: LatencyBudget | None = option(
        None, help="longest time for a batch in onnxruntime: 0.4x of the teacher's, or 5ms"
    )
    max_size: SizeBudget | None = option(None, help="largest ONNX file: 0.25x of the teacher's, or 2MB")
    max_macs: Budget | None = option(None, help="most multiply-accumulates: 0.3x of the teacher's, or 90M")
    max_drop: Points | None = option(
        None, help="largest loss of accuracy against the teacher, on validation images: 1%"
    )
    hours: float | None = option(
        None, above=0, help="time for everything; sets the epochs; unset: --epochs for the winner, as many for trials"
    )
    candidates: tuple[str, ...] = option(
        (), help="methods that may propose, such as halve,filter-l1; unset: all installed ones that can be sized"
    )
    trials: int = option(8, minimum=1, help="most candidates that are trained; the largest within the budget first")
    quantised: bool = option(True, help="propose each candidate in 8 bits too")
    provider: str = option(
        "cpu",
        choices=tuple(PROVIDERS),
        help="what onnxruntime runs networks on when latency is measured",
    )
    latency_threads: int = option(1, minimum=1, help="threads of onnxruntime when latency is measured")
    latency_batch: int = option(1, minimum=1, help="images in a batch when latency is measured")
    latency_from: Path | None = option(
        None,
        help="file of kdtool measure --json of the teacher's ONNX file on the device that a --max-latency in ms means",
    )

    def __post_init__(self) -> None:
        """Check that there is a budget, that the candidates are methods, and that the device is told once.

        Raises:
            UsageError: there is no budget or no such method, or --latency-from goes with an option that says how to
                measure here.
        """
        super().__post_init__()
        if not any((self.max_latency, self.max_size, self.max_macs)):
            raise UsageError("compress needs a budget: --max-latency 0.4x, --max-size 2MB or --max-macs 0.3x")
        known = [plugin.name for plugin in installed() if plugin.kind in KINDS] if self.candidates else []
        for name in self.candidates:
            if name not in known:
                hint = nearest(name, known)
                raise UsageError(f"--candidates {name}: there is no refiner, pruner or distiller of that name{hint}")
        if self.latency_from is not None and (self.max_latency is None or self.max_latency.relative):
            raise UsageError("--latency-from: tells the device of a --max-latency in ms; give one, such as 5ms")
        if self.latency_from is not None and self.provider != "cpu":
            raise UsageError("--latency-from: tells how it was measured elsewhere; leave --provider out")

    @property
    def endings(self) -> tuple[str, ...]:
        """How files end that may be written beside the checkpoint."""
        return (QUANTISED,) if self.quantised else ()

    @property
    def texts(self) -> dict[str, str]:
        """The limits that are set, as they are typed, by the flag."""
        names = ("max_latency", "max_size", "max_macs", "max_drop")
        return {f"--{name.replace('_', '-')}": str(value) for name in names if (value := getattr(self, name))}


def refused(method: type[Distiller]) -> str:
    """Return why a method cannot train a student that it is given, as the end of a message; empty if it can."""
    if not (method.makes_student or method.several_teachers):
        return ""
    why = "makes its student itself" if method.makes_student else "learns from several teachers"
    return f"{why}; compress needs one that trains a given student, such as kd"


def check_epochs(epochs: int) -> None:
    """Raise a UsageError if candidates would not be trained."""
    if epochs < 1:
        raise UsageError("--epochs 0: compress trains its candidates; give 1 or more")


@dataclass
class Given:
    """The options of the trainings as the user gave them, from which a recipe fills in the others."""

    training: Mapping[str, Any]
    data: Mapping[str, Any]
    budget: BudgetOptions
