"""ONNX, an open format for networks (https://onnx.ai), written by torch.onnx, checked and measured with onnxruntime."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Error, Exporter, Points, UsageError, option
from kdtool.exporting import PROVIDERS
from kdtool.utils import gzip_bytes
from kdtool_exporters.onnx_disk import move, scratch_folder, write_errors
from kdtool_exporters.onnx_model import set_metadata, structure_of
from kdtool_exporters.onnx_parity import accuracy
from kdtool_exporters.onnx_session import open_file, run
from kdtool_exporters.onnx_verdict import verdict

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network

    Batches = Iterable[tuple[Tensor, Tensor]]

log = logging.getLogger("kdtool")

QUANTISED = ("max_drop", "calibration", "calibration_images", "float_ends", "only", "skip", "reduce_range")
"""The options of files of a lower precision."""

OF_INT8 = ("calibration", "calibration_images", "float_ends", "reduce_range")
"""Those that files of half precision do not have."""

MEASURED = ("provider", "threads", "batch", "pairs", "latency_seconds")
"""The options of a latency measurement."""

MISSING = (
    "holds no measurement of this network; export it with --no-latency and the same other options, and measure that "
    "{} file on the device: kdtool measure --json"
)

COMPARED_SECONDS, COMPARED_PAIRS = 3.0, 20
"""How long, and how many pairs of samples, two ways to quantise are timed to choose the faster."""


class Onnx(Exporter):
    """Write an ONNX file, check that it gives the network's outputs, and measure its bytes, accuracy and latency.

    The file maps normalised float32 ``images`` [batch, channels, height, width] to ``logits`` [batch, classes], for any
    batch size. It is written only if |y_onnx - y| <= 1e-4 max|y| on random images and the best classes are the same.
    If not, the file may still pass a comparison with the network in float64, where its relative error may be 1e-4 or
    four times that of the network's own float32 outputs, whichever is larger.

    ``int8`` and ``fp16`` write a file of lower precision, which is made from the checked one. The validation images
    calibrate it, and choose among the ways to quantise. Convolutional networks get 8-bit weights and activations with
    ranges that are fixed; of a transformer only the layers with weights are quantised, with ranges that are fixed or
    found while it runs. The 8-bit file of a network that was trained in 8 bits has the ranges of its training.
    """

    suffix: ClassVar[str] = ".onnx"

    opset: int = option(18, minimum=18, help="version of the ONNX operator set")
    int8: bool = option(False, help="quantise weights and activations to 8 bits")
    fp16: bool = option(False, help="convert weights and activations to half precision")
    max_drop: Points | None = option(
        None, help="put the layers that lose most back to float until at most this accuracy is lost, such as 1%"
    )
    calibration: str = option(
        "auto",
        choices=("auto", "minmax", "percentile", "entropy"),
        help="how int8 finds the ranges of activations; auto: what is best on validation images",
    )
    calibration_images: int = option(256, minimum=2, help="number of validation images that calibrate int8")
    float_ends: str = option(
        "auto",
        choices=("auto", "on", "off"),
        help="leave the first and the last layer in float; auto: if that is more accurate and no slower",
    )
    only: tuple[str, ...] = option((), help="lower these layers alone, such as layer3,layer4; the rest stays in float")
    skip: tuple[str, ...] = option((), help="layers that stay in float, such as head,blocks.0")
    reduce_range: str = option(
        "auto", choices=("auto", "on", "off"), help="use 7 bits of 8; auto: if this processor would overflow"
    )
    latency: bool = option(True, help="measure the latency in onnxruntime")
    pairs: int = option(50, minimum=1, help="pairs of latency samples, one of the student and one of its teacher")
    provider: str = option(
        "cpu",
        choices=tuple(PROVIDERS),
        help="what onnxruntime runs the network on in the latency measurement",
    )
    threads: int = option(1, minimum=1, help="threads of onnxruntime in the latency measurement")
    batch: int = option(1, minimum=1, help="images in a batch in the latency measurement")
    latency_seconds: float = option(
        60.0, above=0, help="measure fewer pairs if they would take longer than this, in seconds"
    )
    latency_from: Path | None = option(
        None, help="take the latencies from a file that kdtool measure --json made on another device"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.int8 and self.fp16:
            raise UsageError("--int8 and --fp16: choose one; the file has one precision")
        for info in self.describe():
            changed = getattr(self, info.name) != info.default
            if info.name in MEASURED and changed and self.latency_from:
                raise UsageError(f"{info.flag}: --latency-from tells how it was measured elsewhere; leave one out")
            if info.name in (*MEASURED, "latency_from") and changed and not self.latency:
                raise UsageError(f"{info.flag}: --no-latency measures none; leave one out")
            if info.name in QUANTISED and changed and not (self.int8 or self.fp16):
                raise UsageError(f"{info.flag}: belongs to --int8 or --fp16; give one of them")

    @property
    def ending(self) -> str:
        """The end of the names of its files, such as ``-int8.onnx``."""
        return ("-int8" if self.int8 else "-fp16" if self.fp16 else "") + self.suffix

    @property
    def times(self) -> bool:
        """Whether latencies are measured here."""
        return self.latency and self.latency_from is None

    @property
    def uses_validation(self) -> bool:
        """Whether `export` takes validation images."""
        return self.int8 or self.fp16

    def export(
        self,
        network: Network,
        output: Path,
        *,
        metadata: Mapping[str, str],
        teacher: Network | None = None,
        test: Batches | None = None,
        val: Batches | None = None,
    ) -> dict[str, Any]:
        """Write ``output`` and return the measurements as plain data.

        ``val`` are batches of validation images, which a file of lower precision is made with; they are iterated
        several times, and so is ``test``.

        Raises:
            kdtool.Error: the network cannot be exported, or the file does not give the network's outputs or cannot be
                written, or loses more accuracy than is allowed; no file is left behind.
        """
        from kdtool.exporting import check_provider, read_measurements
        from kdtool.models import without_quantiser
        from kdtool_exporters.onnx_lower import lowered
        from kdtool_exporters.onnx_once import write_once
        from kdtool_exporters.onnx_trained import check_trained, trained_file

        if self.latency_from is not None:
            read_measurements(self.latency_from)
        elif self.latency:
            check_provider(self.provider)
        for info in map(self.info, OF_INT8 if self.fp16 else ()):
            if getattr(self, info.name) != info.default:
                log.warning("%s: is not used with --fp16", info.flag)
        spec, in_float = network.architecture.spec, without_quantiser(network)
        trained = self.int8 and in_float is not network
        if trained:
            check_trained(self, spec)
        scores: dict[str, Any] | None = None

        def measured_of(file: Path) -> Mapping[str, str]:
            nonlocal scores
            scores = _accuracy(file, spec, test)
            return {**metadata, **_metrics(scores)}

        with scratch_folder(output) as folder, tempfile.TemporaryDirectory() as scratch:
            path, about = folder / output.name, {}
            if not (self.int8 or self.fp16):
                if in_float is not network:
                    log.warning("%s: was trained in 8 bits, and this file computes in float; --int8: in 8 bits", spec)
                parity = write_once(in_float, path, opset=self.opset, metadata=measured_of, output=output)
            else:
                float_path = Path(scratch) / "float.onnx"
                parity = write_once(in_float, float_path, opset=self.opset, metadata={}, output=output)
                if trained:
                    with write_errors(output):
                        made = trained_file(self, network, float_path, path, val)
                else:
                    made = lowered(self, float_path, path, spec, val, self.slower if self.times else None)
                about = self._beside_float(made, path, float_path, spec, test)
                about["float"]["parity"], parity = parity, None  # how far the file itself is off, its accuracy tells
                scores = about.pop("accuracy")
                with write_errors(output):
                    precision = {"kdtool.precision": made["precision"]}
                    set_metadata(path, path, {**metadata, **precision, **_metrics(scores)})
            measured: dict[str, Any] = {
                "onnx": str(output),
                **_sizes([*folder.iterdir()]),
                "opset": self.opset,
                **({} if parity is None else {"parity": parity}),
                "accuracy": scores,
                **about,
                **self._measure(path, teacher, about.get("float")),
            }
            with write_errors(output):
                move(folder, output.parent)
        if about and about["worth_it"] is False:
            log.warning("%s: not worth it: %s", output, about["why"])
        return measured

    def draft(self, network: Network, output: Path, *, val: Batches | None = None) -> None:
        """Write a file that is about as large and as fast, in a tenth of the time and without any check."""
        from kdtool_exporters.onnx_draft import write_draft

        with write_errors(output):
            write_draft(self, network, output, val)

    def export_unchecked(self, network: Network, output: Path, *, metadata: Mapping[str, str]) -> None:
        """Write a file that is as large as an exported one, in the same way and without any check."""
        from kdtool_exporters.onnx_draft import write_draft

        precision = {"kdtool.precision": "int8" if self.int8 else "fp16"} if self.int8 or self.fp16 else {}
        with write_errors(output):
            write_draft(self, network, output, None, as_exported=True)
            set_metadata(output, output, {**metadata, **precision})

    def _beside_float(
        self, made: dict[str, Any], path: Path, float_path: Path, spec: str, test: Batches | None
    ) -> dict[str, Any]:
        """Return what the file of lower precision loses and gains beside the float file."""
        before, after = (_accuracy(file, spec, test) for file in (float_path, path))
        latency = self._time(path, float_path) if self.latency else None
        worth_it, why = verdict(before, after, latency)
        of_float = {**_sizes([float_path]), "accuracy": before, "latency": latency}
        return {"accuracy": after, "quantised": made, "float": of_float, "worth_it": worth_it, "why": why}

    def _measure(self, path: Path, teacher: Network | None, of_float: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the latency of the file, beside that and the size of the teacher, exported in the same way.

        Without a teacher the samples that were taken in pairs with those of the float file count.
        """
        if self.latency and teacher is None and of_float is not None:
            alone = dict.fromkeys(("teacher", "ratio", "ratio_low", "ratio_high"))
            return {"latency": {**of_float["latency"], **alone}}
        if not self.latency or teacher is None:
            return {"latency": self._time(path, None) if self.latency else None}
        from kdtool.models import without_quantiser
        from kdtool_exporters.onnx_once import write_once

        with tempfile.TemporaryDirectory() as scratch:
            teacher_path = Path(scratch) / "teacher.onnx"
            write_once(
                without_quantiser(teacher),
                teacher_path,
                opset=self.opset,
                metadata={},
                output=teacher_path,
                check=False,
            )
            return {"latency": self._time(path, teacher_path), "teacher": _sizes([*teacher_path.parent.iterdir()])}

    def slower(self, path: Path, other: Path) -> float:
        """Return the latency of a file over that of another, measured for a short time."""
        pairs, seconds = min(COMPARED_PAIRS, self.pairs), min(COMPARED_SECONDS, self.latency_seconds)
        return float(self._time(path, other, pairs, seconds)["ratio"])

    def _time(
        self, path: Path, against: Path | None, pairs: int | None = None, seconds: float | None = None
    ) -> dict[str, Any]:
        from kdtool.exporting import measure_latency, measured_elsewhere, read_measurements

        if self.latency_from is not None:
            rows = read_measurements(self.latency_from)
            own, other = structure_of(path), None if against is None else structure_of(against)
            found = measured_elsewhere(rows, own, other)
            if found is None:
                raise Error(f"{self.latency_from}: {MISSING.format(self.suffix)}")
            return {**found, "from": str(self.latency_from)}
        return measure_latency(
            path,
            against,
            batch=self.batch,
            threads=self.threads,
            provider=self.provider,
            pairs=pairs or self.pairs,
            seconds=seconds or self.latency_seconds,
        )


def _sizes(files: list[Path]) -> dict[str, int]:
    return {
        "file_bytes": sum(file.stat().st_size for file in files),
        "gzip_bytes": sum(gzip_bytes(file) for file in files),
    }


def _metrics(scores: Mapping[str, Any] | None) -> dict[str, str]:
    return {} if scores is None else {"kdtool.metrics": json.dumps([scores])}


def _accuracy(path: Path, spec: str, test: Batches | None) -> dict[str, Any] | None:
    return None if test is None else accuracy(partial(run, open_file(path, spec)), test)
