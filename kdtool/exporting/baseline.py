"""Latencies as shares of another network's, measured in onnxruntime while something is looked for.

Each network is timed in adjacent pairs with the other one, whose session stays open, so that other load on the machine
affects both equally. Files are drafts, see `Exporter.draft`.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdtool.errors import Error, first_line
from kdtool.exporting.exporter import Exporter
from kdtool.exporting.samples import Sampler, compare, on_thread_clock, paired, repeats, warm_up
from kdtool.exporting.sessions import caller, failures, open_session
from kdtool.models.architecture import Network
from kdtool.utils.processes import decided

LEAST_PAIRS = 6
"""The fewest pairs of samples, however long they take."""

PAIRS, SECONDS = 100, 5.0
"""Pairs of samples of a measurement of `RelativeLatency`; fewer if they take longer."""

WARM_UP_SECONDS = 0.3
"""How long the file that others are timed with runs before; others run for a sixth of this."""


class Baseline:
    """A file in onnxruntime that other files are timed in turn with, on the same device."""

    def __init__(self, path: Path, *, provider: str = "cpu", threads: int = 1, batch: int = 1) -> None:
        """Open the file and time it alone; it is not read again.

        Raises:
            Error: onnxruntime cannot run it.
        """
        self.provider, self.threads, self.batch = provider, threads, batch
        self._column = 0 if on_thread_clock(provider, threads) else 1
        call = self._caller(path)
        self._seconds = warm_up(call, WARM_UP_SECONDS)
        self._sampler = Sampler(call, repeats(self._seconds))
        samples = np.array([self._sampler() for _ in range(LEAST_PAIRS * 2)])
        self.milliseconds = float(np.median(samples[:, self._column])) / 1e6
        """The median time of a batch, by the clock that `on_thread_clock` says."""

    def ratio(self, path: Path, *, seconds: float = SECONDS, pairs: int = PAIRS) -> float:
        """Return the latency of a file over that of this one, by so many ``pairs`` of samples, or those of ``seconds``.

        Raises:
            Error: onnxruntime cannot run it.
        """
        call = self._caller(path)
        each = warm_up(call, WARM_UP_SECONDS / 6)
        sampler = Sampler(call, repeats(each))
        # A sample makes one call more than it times, see Sampler.
        pair = (sampler.repeats + 1) * each + (self._sampler.repeats + 1) * self._seconds
        first, second = paired(sampler, self._sampler, max(LEAST_PAIRS, min(pairs, int(seconds / pair))))
        return compare(first[:, self._column], second[:, self._column])[0]

    def _caller(self, path: Path) -> Callable[[], Any]:
        try:
            # A draft computes shapes that an export has as constants; with a fixed batch they are constants too.
            return caller(open_session(path, self.threads, self.provider, self.batch), self.batch, 0)
        except failures() as error:
            raise Error(f"onnxruntime cannot run the network: {first_line(error)}") from error


class RelativeLatency:
    """The latencies of networks as shares of that of the ``whole`` one, on the device that an exporter's options name.

    Of several processes the first one measures. Nothing is done before the first measurement.
    """

    def __init__(self, exporter: Exporter, whole: Network) -> None:
        self.exporter, self.whole = exporter, whole

    def of(self, network: Network) -> float:
        """Return the latency of a network over that of the whole one.

        Raises:
            Error: the network cannot be exported, or onnxruntime cannot run it.
        """
        return decided(partial(self._measured, network))

    def _measured(self, network: Network) -> float:
        with tempfile.TemporaryDirectory() as scratch:
            return self._baseline.ratio(self._file(network, scratch))

    @functools.cached_property
    def _baseline(self) -> Baseline:
        device = {name: getattr(self.exporter, name) for name in ("provider", "threads", "batch")
                  if hasattr(self.exporter, name)}  # fmt: skip
        with tempfile.TemporaryDirectory() as scratch:
            return Baseline(self._file(self.whole, scratch), **device)

    def _file(self, network: Network, folder: str) -> Path:
        path = Path(folder) / f"network{self.exporter.suffix}"
        self.exporter.draft(network, path)
        return path
