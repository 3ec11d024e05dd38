"""What a network costs before it is trained: multiply-accumulates, bytes of its file and latency.

Latencies are shares of the teacher's, see `Baseline`. Files are drafts, see `Exporter.draft`.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kdtool.commands.export import MADE, metadata_of
from kdtool.compression.options import BudgetOptions
from kdtool.errors import UsageError
from kdtool.exporting.baseline import Baseline
from kdtool.exporting.exporter import Exporter, exporter_of_suffix
from kdtool.exporting.samples import on_thread_clock
from kdtool.exporting.sessions import check_provider, cpu_name
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.size import macs, measure
from kdtool.plugins.registry import make
from kdtool.training.run import Run

SUFFIX = ".onnx"

PAIRS, SECONDS = 24, 0.3
"""Pairs of samples of a measurement; fewer if they take longer than so many seconds."""

NEAR = 1.05
"""Up to this factor an exported file counts as within the budget: two measurements differ by as much."""

LATER = {MADE: "0" * 80, "kdtool.metrics": "0" * 110}
"""What the file of an export tells that is known only then, in as many bytes as it may take: the word by which
``--resume`` knows the file, and its accuracy on the test images."""

INT8 = "int8"
"""The option of an exporter that quantises to 8 bits, and the precision of its files."""


@dataclass(frozen=True)
class Cost:
    """The cost of a network as a file."""

    macs: int
    parameters: int
    file_bytes: int | None = None
    latency_ratio: float | None = None
    """Its latency over that of the teacher's file in float32; None if it was not measured."""
    latency_ms: float | None = None
    """That share of the teacher's latency on the device."""

    def as_data(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return asdict(self)


@dataclass(frozen=True)
class Limits:
    """The budget in numbers; infinite where there is none."""

    latency_ratio: float = math.inf
    file_bytes: float = math.inf
    macs: float = math.inf

    def load(self, cost: Cost) -> float:
        """Return the largest of a cost's numbers over their limits: up to 1 the budget is met."""
        pairs = [(cost.macs, self.macs), (cost.file_bytes, self.file_bytes), (cost.latency_ratio, self.latency_ratio)]
        return max(value / limit for value, limit in pairs if value is not None)

    def allow(self, cost: Cost | None) -> bool:
        """Return whether a cost is within the budget; one that is not known yet counts as if it was."""
        return cost is None or self.load(cost) <= 1

    @property
    def exported(self) -> bool:
        """Whether a file has to be written to know if the budget is met."""
        return self.timed or self.file_bytes < math.inf

    @property
    def timed(self) -> bool:
        """Whether the latency is limited."""
        return self.latency_ratio < math.inf


class Meter:
    """Measures networks against a teacher, on the device that the options name."""

    def __init__(
        self,
        teacher: Network,
        options: BudgetOptions,
        folder: Path,
        int8: bool = False,
        teacher_ms: float | None = None,
        *,
        seconds: float = SECONDS,
        pairs: int = PAIRS,
        run: Run | None = None,
    ) -> None:
        """Time the teacher's file in ``folder``, where files of candidates are written.

        If bytes are limited, those of a file are as ``kdtool export`` writes it of the result of the ``run``: exactly
        the teacher's, and about those of other networks, see `exported`. Without a run they are those of the draft.

        With ``int8`` the files of candidates have 8 bits, if the exporter can. ``teacher_ms`` is the teacher's time if
        an earlier meter has it: milliseconds of several meters can be compared only if they are shares of the same one.
        A measurement has so many ``pairs`` of samples, or fewer if they take more than ``seconds``.

        Raises:
            UsageError: the provider is not installed, or no exporter writes ONNX files.
            Error: the teacher cannot be exported, or onnxruntime cannot run it.
        """
        check_provider(options.provider)
        self.options, self.folder, self.int8 = options, folder, int8
        self.seconds, self.pairs = seconds, pairs
        self.run = run if options.max_size is not None else None
        self.exporter = exporter_for(int8=int8)
        self.known: dict[str, Cost] = {}
        """By structure: the files of networks that differ in their weights alone cost the same."""
        self.ratios: dict[str, list[float]] = {}
        """All measurements behind the latencies of `known`."""
        path = folder / f"teacher{SUFFIX}"
        exporter_for().draft(teacher, path)
        self.more = 0
        """The bytes that the exported file of a network has more than its draft, as far as that is known."""
        if self.run is not None:
            self.more = self._exported_bytes(teacher, self.run) - self._drafted(teacher).stat().st_size
        device = {"threads": options.latency_threads, "batch": options.latency_batch}
        self.baseline = Baseline(path, provider=options.provider, **device)
        self.teacher_ms = self.baseline.milliseconds
        self.device = device_of(options)
        if teacher_ms is not None:
            self.teacher_ms = teacher_ms
        elif options.latency_from is not None:
            found = _elsewhere(teacher, options, folder)
            # As the latencies that are measured here: on a busy machine the wall clock shows its load.
            self.teacher_ms = float(found["cpu_ms"] or found["student"]["p50_ms"])
            how = _threads(found["threads"], found["cpu_ms"] is not None)
            self.device = f"{found['cpu'] or 'the device'} of {options.latency_from} ({how})"

    def cost(self, network: Network, limits: Limits | None = None) -> Cost:
        """Return the cost of a network; with ``limits`` the file and its latency only if they are limited, and if
        they are met so far.

        Raises:
            Error: it cannot be exported, or onnxruntime cannot run it.
        """
        counted = Cost(
            macs(network.module, network.architecture.input),
            sum(parameter.numel() for parameter in network.module.parameters()),
        )
        if limits is not None and (limits.load(counted) > 1 or not limits.exported):
            return counted
        alike = structure_key(network)
        if alike not in self.known or self.known[alike].latency_ratio is None:
            self.known[alike] = self._measured(network, counted, limits)
        return self.known[alike]

    def again(self, network: Network) -> Cost:
        """Measure the latency of a network once more, and return its cost with the mean of all measurements so far.

        Raises:
            Error: it cannot be exported, or onnxruntime cannot run it.
        """
        known = self.cost(network)
        ratios = self.ratios[structure_key(network)]
        ratios.append(self.ratio(self._drafted(network)))
        mean = sum(ratios) / len(ratios)
        cost = replace(known, latency_ratio=mean, latency_ms=mean * self.teacher_ms)
        self.known[structure_key(network)] = cost
        return cost

    def exported(self, network: Network) -> Cost:
        """Return the cost of a network with the bytes of its exported file, if bytes are limited; as `cost` otherwise.

        Raises:
            Error: it cannot be exported, or onnxruntime cannot run it.
        """
        known = self.cost(network)
        if self.run is None:
            return known
        cost = replace(known, file_bytes=self._exported_bytes(network, self.run))
        self.known[structure_key(network)] = cost
        return cost

    def _exported_bytes(self, network: Network, run: Run) -> int:
        path = self.folder / f"exported{SUFFIX}"
        self.exporter.export_unchecked(network, path, metadata=told(run.checkpoint(network, [])))
        return path.stat().st_size

    def _drafted(self, network: Network) -> Path:
        path = self.folder / f"candidate{SUFFIX}"
        self.exporter.draft(network, path)
        return path

    def _measured(self, network: Network, counted: Cost, limits: Limits | None) -> Cost:
        path = self._drafted(network)
        sized = Cost(counted.macs, counted.parameters, path.stat().st_size + self.more)
        if limits is not None and (limits.load(sized) > 1 or not limits.timed):
            return sized
        ratio = self.ratio(path)
        self.ratios[structure_key(network)] = [ratio]
        return Cost(counted.macs, counted.parameters, sized.file_bytes, ratio, ratio * self.teacher_ms)

    def ratio(self, path: Path) -> float:
        """Return the latency of a file over that of the teacher's draft."""
        return self.baseline.ratio(path, seconds=self.seconds, pairs=self.pairs)


def told(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what the file tells that ``kdtool export`` writes of a checkpoint, in as many bytes at least."""
    return {**metadata_of(checkpoint, None, measure(checkpoint.network)), **LATER}


def structure_key(network: Network) -> str:
    """Return what two networks have in common that differ in their weights alone, as a short text."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in network.module.state_dict().items()]
    return hashlib.sha256(repr((network.architecture.spec, network.architecture.input, shapes)).encode()).hexdigest()


def supported(**wanted: Any) -> dict[str, Any]:
    """Return those of the wanted options that the exporter of ONNX files has."""
    known = {info.name for info in exporter_of_suffix(SUFFIX).describe()}
    return {name: value for name, value in wanted.items() if name in known}


def exporter_for(**wanted: Any) -> Exporter:
    """Return the exporter of ONNX files with the wanted options that it has; unless told, it measures no latency."""
    options = supported(**{"latency": False, **wanted})
    exporter: Exporter = make("exporters", exporter_of_suffix(SUFFIX).name, **options)
    return exporter


def device_options(options: BudgetOptions) -> dict[str, Any]:
    """Return the options of an exporter that measures latency on the device of a budget, as plain data."""
    device = supported(provider=options.provider, threads=options.latency_threads, batch=options.latency_batch)
    return {"name": exporter_of_suffix(SUFFIX).name, **device}


def can_quantise() -> bool:
    """Return whether the installed exporter writes files of 8 bits."""
    return bool(supported(int8=True))


def device_of(options: BudgetOptions) -> str:
    """Return the device on which files are timed, as text."""
    how = _threads(options.latency_threads, on_thread_clock(options.provider, options.latency_threads))
    return f"{cpu_name()}, {options.provider}, {how}, batch {options.latency_batch}"


def _threads(count: int, cpu_time: bool) -> str:
    return f"{count} thread{'s' * (count > 1)}, {'CPU' if cpu_time else 'wall'} time"


def device_known(options: BudgetOptions) -> str | None:
    """Return what of the device of a latency in milliseconds is known, and what is assumed, as one line."""
    if options.max_latency is None or options.max_latency.relative:
        return None
    if options.latency_from is None:
        return (
            f"{options.max_latency} is meant for {device_of(options)}; for another device give --latency-from a "
            "file of kdtool measure"
        )
    return (
        f"{options.latency_from} tells the teacher's time alone; that of each candidate is taken to be the same "
        f"share of it as here ({device_of(options)}): measure the student there with kdtool measure"
    )


def _elsewhere(teacher: Network, options: BudgetOptions, folder: Path) -> Mapping[str, Any]:
    """Return the teacher's latency as it was measured elsewhere, see `measured_elsewhere`.

    Raises:
        UsageError: it was measured with other batches than candidates will be.
        Error: the file has no measurement of the teacher.
    """
    exporter = exporter_for(latency=True, latency_from=options.latency_from)
    measured: Mapping[str, Any] = exporter.export(teacher, folder / f"elsewhere{SUFFIX}", metadata={})
    latency: Mapping[str, Any] = measured["latency"]
    if latency["batch"] != options.latency_batch:
        raise UsageError(
            f"--latency-from {options.latency_from}: was measured with batches of {latency['batch']}, and candidates "
            f"are timed with {options.latency_batch}; give --latency-batch {latency['batch']}"
        )
    return latency


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a temporary folder for the files that are measured."""
    with tempfile.TemporaryDirectory(prefix="kdtool-compress-") as folder:
        yield Path(folder)
