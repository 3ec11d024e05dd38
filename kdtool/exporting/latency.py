"""How long a batch of images takes in onnxruntime, and how that compares with another network.

Two networks are sampled in adjacent pairs, so that whatever else the machine does falls on both alike, by the CPU
time of the one thread that computes, which counts no waiting. A network that takes microseconds is called many times
for one sample.
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

LEAST_PAIRS = 6

LEAST_SAMPLE = 5e-3
"""Seconds that a sample lasts at least."""

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
    """Measure an ONNX model, and another one beside it, in onnxruntime on the CPU.

    Each is a file or its bytes, and is fed random images of its own input size. Where ``pairs`` would take more than
    ``seconds``, fewer are measured, but not less than 6.

    Returns:
        ``student`` and ``teacher``: ``p50_ms`` and ``p90_ms``, wall milliseconds for ``batch`` images.
        ``ratio``: the model's time over the other's, with ``ratio_low`` and ``ratio_high``, its 95 % interval (see
        `compare`). ``noise``: how far from 1 that interval reaches for two sessions of one model; a ratio nearer to 1
        says nothing. ``clock``: ``thread-cpu``, or ``wall`` where there is more than one thread.
        ``threads``, ``pairs`` (as measured), ``batch``, ``onnxruntime`` (its version) and ``cpu``.
        Without ``against`` the teacher and the ratio are None.

    Raises:
        Error: onnxruntime cannot run a model.
    """
    import onnxruntime

    models = {"student": model, "again": model} | ({} if against is None else {"teacher": against})
    rivals = [name for name in ("teacher", "again") if name in models]
    try:
        calls = {name: caller(open_session(one, threads), batch, seed) for name, one in models.items()}
        each = {name: warm_up(call, seconds / 20) for name, call in calls.items()}
        samplers = {name: Sampler(call, repeats(each[name])) for name, call in calls.items()}
        # One call more than is timed: see Sampler.
        round_seconds = sum(
            each[name] * (samplers[name].repeats + 1) for rival in rivals for name in ("student", rival)
        )
        pairs = max(min(pairs, int(seconds / round_seconds)), min(pairs, LEAST_PAIRS))
        with progress("latency", pairs * len(rivals)) as advance:
            times = {rival: paired(samplers["student"], samplers[rival], pairs, advance) for rival in rivals}
    except failures() as error:
        raise Error(
            f"onnxruntime {onnxruntime.__version__} cannot run the model: {str(error).splitlines()[0]}"
        ) from error
    # The thread's clock does not see the pool that computes beside the calling thread.
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
    """Return an onnxruntime session on the CPU with every graph optimisation and ``threads`` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # The pools of two sessions that spin while they wait would take the cores from one another.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def failures() -> tuple[type[Exception], ...]:
    """Return the exceptions of onnxruntime, which have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(found for found in vars(state).values() if isinstance(found, type) and issubclass(found, Exception))


def caller(session: Any, batch: int, seed: int) -> Callable[[], Any]:
    """Return a call of the session with ``batch`` random images of its own input size.

    Raises:
        Error: its input is not one batch of float32 images of a fixed size.
    """
    given = session.get_inputs()
    sizes = given[0].shape[1:]
    if len(given) != 1 or given[0].type != "tensor(float)" or not all(isinstance(size, int) for size in sizes):
        shapes = ", ".join(f"{one.name} {one.type} {one.shape}" for one in given)
        raise Error(f"the model takes {shapes}; its latency is measured with float32 images of one fixed size")
    images = np.random.default_rng(seed).standard_normal((batch, *sizes)).astype(np.float32)
    outputs, feed = [output.name for output in session.get_outputs()], {given[0].name: images}
    return lambda: session.run(outputs, feed)


def warm_up(call: Callable[[], Any], seconds: float) -> float:
    """Call 10 times, or until ``seconds`` are over but at least twice; return the least seconds of the later calls."""
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < WARM_UPS and sum(taken) < seconds):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def repeats(seconds: float) -> int:
    """Return how many calls of ``seconds`` make a sample."""
    return max(1, math.ceil(LEAST_SAMPLE / max(seconds, 1e-9)))


class Sampler:
    """Times a call, ``repeats`` of them to a sample."""

    def __init__(self, call: Callable[[], Any], repeats: int) -> None:
        self.call = call
        self.repeats = repeats

    def __call__(self) -> tuple[float, float]:
        """Return the thread's CPU nanoseconds and the wall nanoseconds per call."""
        # Untimed: it brings the weights back into the caches that the other network of the pair has filled.
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
    """Take samples of both in adjacent pairs, the order alternating; ``advance`` is called after every pair.

    Returns:
        For each an array [pairs, 2] of its samples; row i of both is pair i.
    """
    both = (first, second)
    times: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            times[which].append(both[which]())
        advance()
    return np.array(times[0]), np.array(times[1])


def compare(first: Times, second: Times, seed: int = 0, resamples: int = 2000) -> tuple[float, float, float]:
    """Return the median over pairs of first / second, and its 95 % interval (Efron's percentile bootstrap).

    ``first`` and ``second`` are the times [pairs]; one seed always gives one interval. The median of the pairs' ratios
    and not the ratio of the two medians, which loses what the pairing won: on a loaded machine it spread more in 19
    of 24 settings.
    """
    ratios = first / second
    rows = np.random.default_rng(seed).integers(len(ratios), size=(resamples, len(ratios)))
    low, high = np.percentile(np.median(ratios[rows], axis=1), (2.5, 97.5))
    return float(np.median(ratios)), float(low), float(high)


def percentiles(nanoseconds: Times) -> dict[str, float]:
    """Return ``p50_ms`` and ``p90_ms`` of the times."""
    p50, p90 = np.percentile(nanoseconds, (50, 90)) / 1e6
    return {"p50_ms": float(p50), "p90_ms": float(p90)}


def cpu_name() -> str:
    """Return the processor's name, as far as the system tells it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8", errors="replace").splitlines() if about.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
