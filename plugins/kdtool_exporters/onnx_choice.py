"""Choose how a network is quantised: by its accuracy on validation images, and by its latency where two are as good."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool import Error
from kdtool_exporters.onnx_images import divergence, first_images
from kdtool_exporters.onnx_quantise import Layer, calibrated, dynamic, half, is_transformer, operators_of, static
from kdtool_exporters.onnx_session import open_file, outputs, run_all

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

CALIBRATIONS = ("minmax", "percentile", "entropy")

SENSITIVITY_IMAGES = 128
"""On how many images the loss of each layer alone is measured."""

AS_FAST = 1.05
"""Up to this ratio of latencies a file counts as no slower than another."""

AS_LARGE = 1.1
"""Up to this ratio of bytes a file counts as no larger than another."""

AS_GOOD = 0.005
"""Up to this loss of accuracy the faster of two ways is taken, where no largest loss is given."""


@dataclass(frozen=True)
class Trial:
    """A quantised file, how it was made and what it does to the validation images."""

    file: Path
    way: str
    """``static``, ``dynamic`` or ``fp16``."""
    calibration: str | None
    kept: tuple[str, ...]
    """The layers that stay in float."""
    right: NDArray[np.bool_]
    """Which validation images get their true class."""
    divergence: float
    """The mean Kullback-Leibler divergence of its probabilities from those of the float network, in nats."""

    @property
    def accuracy(self) -> float:
        """The fraction of the validation images that get their true class."""
        return float(self.right.mean())

    def gain(self, other: Trial) -> int:
        """Return how many more images are right than with another file, or 0 if that may be chance.

        b images are right with this file alone and c with the other alone. If both files were as good, b - c would
        have mean 0 and standard deviation sqrt(b + c); within two of these it counts as chance.
        """
        b, c = int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())
        return b - c if abs(b - c) > 2 * math.sqrt(b + c) else 0

    def better_than(self, other: Trial) -> bool:
        """Return whether it classifies better or, if the accuracies differ by chance, its outputs are nearer."""
        gain = self.gain(other)
        return gain > 0 or (gain == 0 and self.divergence < other.divergence)

    def as_data(self) -> dict[str, Any]:
        """Return what was tried, as plain data."""
        return {
            "way": self.way,
            "calibration": self.calibration,
            "layers_in_float": len(self.kept),
            "accuracy": self.accuracy,
            "divergence": self.divergence if math.isfinite(self.divergence) else None,
        }


@dataclass
class Choice:
    """Make quantised files of a prepared model and compare them with the float file on validation images."""

    spec: str
    model: Path
    """The prepared model, see `onnx_quantise.prepare`."""
    layers: Sequence[Layer]
    val: Iterable[tuple[Tensor, Tensor]]
    """Batches of validation images and their labels; iterated for every trial."""
    calibration_images: Sequence[NDArray[np.float32]] = ()
    seven_bits: bool = False
    skipped: tuple[str, ...] = ()
    """The layers that the user wants to stay in float."""
    slower: Callable[[Path, Path], float] | None = None
    """Return the latency of a file over that of another; None if latency does not matter."""
    trials: list[Trial] = field(default_factory=list)
    _ranges: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reference, self.labels = outputs(open_file(self.model, self.spec), self.val)
        self.float_accuracy = float(self._right(self.reference).mean())

    @property
    def operators(self) -> list[str]:
        """The operators that static quantisation changes."""
        return operators_of(self.layers)

    def int8(self, calibration: str, float_ends: str, max_drop: float | None) -> Trial:
        """Return the best of all ways to quantise to 8 bits, before any layer is put back."""
        methods = CALIBRATIONS if calibration == "auto" else (calibration,)
        best = _best([self.trial("static", how, self.skipped) for how in methods])
        if is_transformer(self.layers) and any(one.name not in self.skipped for one in self.quantisable("dynamic")):
            best = self._static_or_dynamic(best, AS_GOOD if max_drop is None else max_drop)
        ends = self._ends(best.way)
        if float_ends == "off" or not set(ends) - set(best.kept):
            return best
        kept = tuple(dict.fromkeys((*best.kept, *ends)))
        with_ends = self.trial(best.way, best.calibration, kept)
        return with_ends if float_ends == "on" or self._pays(with_ends, best) else best

    def trial(self, way: str, calibration: str | None, kept: tuple[str, ...]) -> Trial:
        """Make one quantised file and measure it on the validation images."""
        file = self.model.with_name(f"trial-{len(self.trials)}.onnx")
        self._make(file, way, calibration, skip=kept)
        logits, _ = outputs(open_file(file, self.spec), self.val)
        trial = Trial(file, way, calibration, kept, self._right(logits), divergence(self.reference, logits))
        self.trials.append(trial)
        return trial

    def restore(self, worst: Trial, max_drop: float) -> Trial:
        """Return a file that loses at most ``max_drop`` of the accuracy: the nearest one of those that were tried.

        If none does, the layers that lose most are put back to float: the fewest, in the order of the divergence that
        each causes alone.

        Raises:
            kdtool.Error: the loss is larger with any layer quantised.
        """
        if within(self.drop(worst), max_drop):
            return worst
        allowed = [trial for trial in self.trials if within(self.drop(trial), max_drop)]
        if allowed:
            return min(allowed, key=lambda trial: trial.divergence)
        order = self._order(worst)

        def trial(count: int) -> Trial:
            kept = (*worst.kept, *order[:count])
            return self.trial(worst.way, worst.calibration, kept)

        # The loss falls with the number of layers in float: double that number, then bisect.
        failed, count = 0, 1
        passed: tuple[int, Trial] | None = None
        while passed is None and failed < len(order) - 1:
            count = min(count, len(order) - 1)
            attempt = trial(count)
            if within(self.drop(attempt), max_drop):
                passed = count, attempt
            else:
                failed, count = count, count * 2
        if passed is None:
            least = min(self.trials, key=self.drop)
            raise Error(
                f"{self.spec}: loses {self.drop(least):.2%} of the validation images at least, with all but one layer "
                f"in float; --max-drop allows {max_drop:.2%}: allow more, or export it in float; nothing was written"
            )
        while passed[0] - failed > 1:
            count = (passed[0] + failed) // 2
            attempt = trial(count)
            if within(self.drop(attempt), max_drop):
                passed = count, attempt
            else:
                failed = count
        return passed[1]

    def drop(self, trial: Trial) -> float:
        """Return the loss of accuracy on the validation images, as a fraction of them; negative if it is a gain."""
        return self.float_accuracy - trial.accuracy

    def _order(self, worst: Trial) -> list[str]:
        """Return the quantised layers, that with the largest divergence alone first."""
        images = first_images(self.val, SENSITIVITY_IMAGES)
        reference = run_all(open_file(self.model, self.spec), images)
        names = [layer.name for layer in self.quantisable(worst.way) if layer.name not in worst.kept]
        file = self.model.with_name("alone.onnx")
        losses: dict[str, float] = {}
        for name in names:
            self._make(file, worst.way, worst.calibration, only=name)
            losses[name] = divergence(reference, run_all(open_file(file, self.spec), images))
        return sorted(names, key=lambda name: -losses[name])

    def quantisable(self, way: str) -> list[Layer]:
        """Return the layers that a way of quantising changes."""
        return [layer for layer in self.layers if way != "dynamic" or layer.operator in ("MatMul", "Gemm")]

    def _make(
        self, file: Path, way: str, calibration: str | None, *, skip: Iterable[str] = (), only: str | None = None
    ) -> None:
        if way == "fp16":
            others = (layer.name for layer in self.layers if layer.name != only)
            half(self.model, file, skip=skip if only is None else others)
            return
        chosen = () if only is None else (only,)
        if way == "dynamic":
            dynamic(self.model, file, skip=skip, only=chosen, seven_bits=self.seven_bits)
            return
        assert calibration is not None
        if calibration not in self._ranges:
            self._ranges[calibration] = calibrated(self.model, self.calibration_images, calibration, self.operators)
        ranges = self._ranges[calibration]
        static(self.model, file, ranges, self.operators, skip=skip, only=chosen, seven_bits=self.seven_bits)

    def _static_or_dynamic(self, best: Trial, loss: float) -> Trial:
        """Return the faster of the two if its loss is within ``loss``, else the more accurate."""
        other = self.trial("dynamic", None, self.skipped)
        faster, slower = best, other
        if self.slower is not None and self.slower(other.file, best.file) < 1:
            faster, slower = other, best
        good = self.slower is not None and within(self.drop(faster), loss)
        return faster if good or faster.better_than(slower) else slower

    def _ends(self, way: str) -> list[str]:
        names = [layer.name for layer in self.quantisable(way)]
        ends = names[-1:] if way == "dynamic" else [*names[:1], *names[-1:]]
        # Of two layers nothing would be left, nor of more if the user chose these.
        return ends if len(names) > 2 and set(names) - {*ends, *self.skipped} else []

    def _pays(self, with_ends: Trial, without: Trial) -> bool:
        """Return whether the first and the last layer are better left in float."""
        gain = with_ends.gain(without)
        gains = gain > 0 or (gain == 0 and with_ends.divergence < without.divergence / 2)
        larger = with_ends.file.stat().st_size > AS_LARGE * without.file.stat().st_size
        if self.slower is None or gain < 0 or (larger and gain == 0):
            return gains and not (larger and gain == 0)
        ratio = self.slower(with_ends.file, without.file)
        return ratio < 1 / AS_FAST or (gains and ratio <= AS_FAST)

    def _right(self, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = logits.argmax(axis=1) == self.labels
        return right


def within(drop: float, limit: float) -> bool:
    """Return whether a loss of accuracy is at most ``limit``: 0.84 - 0.83 is more than 0.01 in floating point."""
    return drop <= limit + 1e-9


def _best(trials: Sequence[Trial]) -> Trial:
    best = trials[0]
    for trial in trials[1:]:
        best = trial if trial.better_than(best) else best
    return best
