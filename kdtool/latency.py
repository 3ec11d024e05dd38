"""How long one image takes in onnxruntime, and how that compares with another network.

Two networks are measured in adjacent pairs, so that whatever else the machine does falls on both alike, and are compared
by the CPU time of the one thread that computes, which other processes hardly touch.
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

WARM_UPS = 10
LEAST_PAIRS = 6
LEAST_SAMPLE = 1e-3
"""Seconds that a sample lasts at least; a quick network is called several times for it."""

Floats = NDArray[np.float64]


def measure_latency(
    model: str | Path | bytes,
    against: str | Path | bytes | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
    pairs: int = 50,
    seconds: float = 60.0,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure an ONNX model, and another one beside it, in onnxruntime on the CPU.

    Both are given as a file or its bytes, and are fed random images of their own input size. ``pairs`` is reduced, to
    no less than 6, where they would take longer than ``seconds``. ``progress`` hears of the samples done and their total.

    Returns:
        ``student`` and ``teacher``: ``p50_ms`` and ``p90_ms``, wall milliseconds per call of ``batch`` images;
        ``ratio``: the model's median over the other's, with ``ratio_low`` and ``ratio_high``, its 95 % bootstrap interval
        over the pairs; ``noise``: how far from 1 the same interval reaches for two sessions of the *same* model;
        ``clock``: what the ratio is made of, ``thread-cpu`` or ``wall``; ``threads``, ``pairs`` (as measured),
        ``batch``, ``onnxruntime`` (its version) and ``cpu``. Without ``against`` the teacher and its ratio are None.
    """
    import onnxruntime

    models = {"student": model, "again": model} | ({} if against is None else {"teacher": against})
    calls = {name: caller(open_session(one, threads), batch, seed) for name, one in models.items()}
    expected = {name: warm_up(call, seconds / 20) for name, call in calls.items()}
    repeats = {name: max(1, math.ceil(LEAST_SAMPLE / each)) for name, each in expected.items()}
    contests = [("student", "again")] if against is None else [("student", "teacher"), ("student", "again")]
    round_seconds = sum(expected[name] * (repeats[name] + 1) for contest in contests for name in contest)
    pairs = max(min(pairs, int(seconds / round_seconds)), min(pairs, LEAST_PAIRS))
    # The thread's clock sees only the calling thread, not the pool that works beside it.
    cpu = threads == 1 and time.get_clock_info("thread_time").resolution <= LEAST_SAMPLE / 100
    times: dict[str, tuple[Floats, Floats]] = {}
    for index, (first, second) in enumerate(contests):
        done = 2 * pairs * index
        times[second] = paired(
            (calls[first], repeats[first]),
            (calls[second], repeats[second]),
            pairs,
            lambda count, done=done: progress(done + count, 2 * pairs * len(contests)),  # type: ignore[misc]
        )
    clock = 0 if cpu else 1
    shown = times["again" if against is None else "teacher"]
    ratio, low, high = (None, None, None) if against is None else compare(shown[0][:, clock], shown[1][:, clock], seed)
    _, noise_low, noise_high = compare(times["again"][0][:, clock], times["again"][1][:, clock], seed)
    return {
        "student": percentiles(shown[0][:, 1]),
        "teacher": None if against is None else percentiles(shown[1][:, 1]),
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
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
    # Two pools that spin while they wait would take the cores from one another.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def caller(session: Any, batch: int, seed: int) -> Callable[[], Any]:
    """Return a call of the session on ``batch`` random images of its own input size."""
    given = session.get_inputs()[0]
    # The first dimension is the batch; the others are fixed when the file is made.
    shape = (batch, *given.shape[1:])
    images = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    outputs, feed = [output.name for output in session.get_outputs()], {given.name: images}
    return lambda: session.run(outputs, feed)


def warm_up(call: Callable[[], Any], seconds: float) -> float:
    """Call it 10 times, or until ``seconds`` are over but at least twice; return the seconds of a warm call."""
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < WARM_UPS and sum(taken) < seconds):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def sample(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the thread's CPU nanoseconds and the wall nanoseconds per call."""
    if WARM: call()
    wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
    for _ in range(repeats):
        call()
    cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    return cpu / repeats, wall / repeats
WARM=True

def paired(
    first: tuple[Callable[[], Any], int],
    second: tuple[Callable[[], Any], int],
    pairs: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Floats, Floats]:
    """Sample two calls, each with its repeats, in adjacent pairs whose order alternates.

    Returns:
        For each call an array [pairs, 2] of thread CPU and wall nanoseconds; row i of both is pair i.
    """
    times: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            times[which].append(sample(*(first, second)[which]))
        progress(2 * (pair + 1))
    return np.array(times[0]), np.array(times[1])


def compare(first: Floats, second: Floats, seed: int = 0, resamples: int = 2000) -> tuple[float, float, float]:
    """Return the ratio of two medians, and its 95 % interval by resampling pairs (Efron's percentile bootstrap).

    ``first`` and ``second`` are [pairs] times; the same seed gives the same interval.
    """
    rows = np.random.default_rng(seed).integers(len(first), size=(resamples, len(first)))
    ratios = np.median(first[rows], axis=1) / np.median(second[rows], axis=1)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(np.median(first) / np.median(second)), float(low), float(high)


def percentiles(nanoseconds: Floats) -> dict[str, float]:
    """Return ``p50_ms`` and ``p90_ms``."""
    p50, p90 = np.percentile(nanoseconds, (50, 90)) / 1e6
    return {"p50_ms": float(p50), "p90_ms": float(p90)}


def cpu_name() -> str:
    """Return the processor's name, as far as the system tells it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8", errors="replace").splitlines() if about.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
