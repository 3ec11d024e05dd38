"""Measure the latency of a network in onnxruntime, alone or compared with another network.

Two networks are sampled in adjacent pairs, so that other load on the machine affects both equally. With one thread,
its CPU time is measured, which excludes waiting. A network that takes microseconds is called many times per sample.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtool.errors import Error
from kdtool.utils.progress import progress

WARM_UPS = 10
"""The most calls of a network before it is timed."""

LEAST_PAIRS = 6
"""The fewest pairs of samples, however little time there is."""

LEAST_SAMPLE = 5e-3
"""The shortest duration of a sample, in seconds."""

Times = NDArray[np.float64]


def measure_latency(
    model: str | Path | bytes,
    against: str | Path | bytes | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
    pairs: int = 50,
    seconds: float = 60.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the latency of an ONNX model in onnxruntime on the CPU, by default alone.

    ``model`` and ``against``, the model to compare with, are files or their bytes. Each gets random images of its own
    input size. If ``pairs`` pairs of samples take more than ``seconds``, fewer are measured, but at least 6.

    Returns:
        ``student`` and ``teacher``: ``p50_ms`` and ``p90_ms``, wall-clock milliseconds for ``batch`` images.
        ``ratio``: the time of ``model`` over that of ``against``, with ``ratio_low`` and ``ratio_high``, its 95 %
        interval (see `compare`). ``noise``: how far from 1 that interval reaches for two sessions of the same model; a
        ratio nearer to 1 than this is no evidence of a difference. ``clock``: ``thread-cpu``, or ``wall`` with more
        than one thread. ``threads``, ``pairs`` (as measured), ``batch``, ``onnxruntime`` (its version) and ``cpu``.
        Without ``against`` the teacher and the ratio are None.

    Raises:
        Error: onnxruntime cannot run a model.
    """
    import onnxruntime

    models = {"student": model, "again": model} | ({} if against is None else {"teacher": against})
    rivals = [name for name in ("teacher", "again") if name in models]
    try:
        calls = {name: caller(open_session(source, threads), batch, seed) for name, source in models.items()}
        call_seconds = {name: warm_up(call, seconds / 20) for name, call in calls.items()}
        samplers = {name: Sampler(call, repeats(call_seconds[name])) for name, call in calls.items()}
        # A sample makes one call more than it times, see Sampler.
        round_seconds = sum(
            call_seconds[name] * (samplers[name].repeats + 1) for rival in rivals for name in ("student", rival)
        )
        pairs = max(min(pairs, int(seconds / round_seconds)), min(pairs, LEAST_PAIRS))
        with progress("latency", pairs * len(rivals)) as advance:
            times = {rival: paired(samplers["student"], samplers[rival], pairs, advance) for rival in rivals}
    except failures() as error:
        raise Error(
            f"onnxruntime {onnxruntime.__version__} cannot run the model: {str(error).splitlines()[0]}"
        ) from error
    # The clock of the calling thread does not count the other threads that compute.
    cpu = threads == 1 and time.get_clock_info("thread_time").resolution <= LEAST_SAMPLE / 100
    column = 0 if cpu else 1
    ratio, low, high = compare(times[rivals[0]][0][:, column], times[rivals[0]][1][:, column], seed)
    _, noise_low, noise_high = compare(times["again"][0][:, column], times["again"][1][:, column], seed)
    alone = against is None
    return {
        "student": percentiles(times[rivals[0]][0][:, 1]),
        "teacher": None if alone else percentiles(times["teacher"][1][:, 1]),
        "ratio": None if alone else ratio,
        "ratio_low": None if alone else low,
        "ratio_high": None if alone else high,
        "noise": max(abs(noise_low - 1), abs(noise_high - 1)),
        "clock": "thread-cpu" if cpu else "wall",
        "threads": threads,
        "pairs": pairs,
        "batch": batch,
        "onnxruntime": onnxruntime.__version__,
        "cpu": cpu_name(),
    }


def open_session(model: str | Path | bytes, threads: int = 1) -> Any:
    """Return an onnxruntime session on the CPU with all graph optimisations and ``threads`` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Threads that spin while they wait would slow down the other session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def failures() -> tuple[type[Exception], ...]:
    """Return the exception classes of onnxruntime, which have no common base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))


def caller(session: Any, batch: int, seed: int) -> Callable[[], Any]:
    """Return a function that runs the session on ``batch`` random images of its own input size.

    Raises:
        Error: the model's input is not one batch of float32 images of a fixed size.
    """
    inputs = session.get_inputs()
    sizes = inputs[0].shape[1:]
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not all(isinstance(size, int) for size in sizes):
        shapes = ", ".join(f"{tensor.name} {tensor.type} {tensor.shape}" for tensor in inputs)
        raise Error(f"the model takes {shapes}; its latency is measured with float32 images of one fixed size")
    images = np.random.default_rng(seed).standard_normal((batch, *sizes)).astype(np.float32)
    outputs, feed = [output.name for output in session.get_outputs()], {inputs[0].name: images}
    return lambda: session.run(outputs, feed)


def warm_up(call: Callable[[], Any], seconds: float) -> float:
    """Warm up and return the duration of the fastest call in seconds, the first call not counted.

    There are 10 calls, or fewer (at least 2) if these take more than ``seconds``.
    """
    durations: list[float] = []
    while len(durations) < 2 or (len(durations) < WARM_UPS and sum(durations) < seconds):
        started = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started)
    return min(durations[1:])


def repeats(seconds: float) -> int:
    """Return the number of calls per sample, if one call takes ``seconds``."""
    return max(1, math.ceil(LEAST_SAMPLE / max(seconds, 1e-9)))


class Sampler:
    """Take samples of the duration of a call: one sample is the mean of ``repeats`` calls."""

    def __init__(self, call: Callable[[], Any], repeats: int) -> None:
        self.call = call
        self.repeats = repeats

    def __call__(self) -> tuple[float, float]:
        """Return the thread's CPU time and the wall-clock time per call, in nanoseconds."""
        # Not timed: this call loads the weights back into the CPU's caches, which hold those of the other network.
        self.call()
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        for _ in range(self.repeats):
            self.call()
        cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        return cpu / self.repeats, wall / self.repeats


def paired(
    first: Callable[[], tuple[float, float]],
    second: Callable[[], tuple[float, float]],
    pairs: int,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Times, Times]:
    """Take one sample of each sampler per pair, in alternating order; call ``advance`` after every pair.

    Returns:
        An array [pairs, 2] of samples for each sampler; row i of both arrays is pair i.
    """
    samplers = (first, second)
    times: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for pair in range(pairs):
        for index in (0, 1) if pair % 2 == 0 else (1, 0):
            times[index].append(samplers[index]())
        advance()
    return np.array(times[0]), np.array(times[1])


def compare(first: Times, second: Times, seed: int = 0, resamples: int = 2000) -> tuple[float, float, float]:
    """Return the median over pairs of first / second, and its 95 % interval (Efron's percentile bootstrap).

    ``first`` and ``second`` are times [pairs]; equal seeds give equal intervals. The median of the pairs' ratios is
    used, not the ratio of the two medians, which does not benefit from the pairing: on a loaded machine it varied more
    in 19 of 24 settings.
    """
    ratios = first / second
    rows = np.random.default_rng(seed).integers(len(ratios), size=(resamples, len(ratios)))
    low, high = np.percentile(np.median(ratios[rows], axis=1), (2.5, 97.5))
    return float(np.median(ratios)), float(low), float(high)


def percentiles(nanoseconds: Times) -> dict[str, float]:
    """Return the median ``p50_ms`` and the 90th percentile ``p90_ms`` of times in nanoseconds, in milliseconds."""
    p50, p90 = np.percentile(nanoseconds, (50, 90)) / 1e6
    return {"p50_ms": float(p50), "p90_ms": float(p90)}


def cpu_name() -> str:
    """Return the processor's name, or its architecture if the system does not name it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
