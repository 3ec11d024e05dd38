"""Samples of how long a call takes, and the statistics of two calls that are sampled in adjacent pairs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

WARM_UPS = 10
"""The most calls of a network before it is timed."""

LEAST_SAMPLE = 5e-3
"""The shortest duration of a sample, in seconds."""

Times = NDArray[np.float64]


def on_thread_clock(provider: str, threads: int) -> bool:
    """Return whether sessions of ``provider`` with so many threads are compared by the CPU time of the calling thread.

    That clock does not count other threads that compute, nor another device; on some systems it is too coarse.
    """
    fine = time.get_clock_info("thread_time").resolution <= LEAST_SAMPLE / 100
    return provider == "cpu" and threads == 1 and fine


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
