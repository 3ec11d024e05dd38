"""Measure the latency of a network in onnxruntime, alone or compared with another network.

Two networks are sampled in adjacent pairs, so that other load on the machine affects both equally. With one thread,
its CPU time is measured, which excludes waiting. A network that takes microseconds is called many times per sample.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kdtool.errors import Error, first_line
from kdtool.exporting.samples import Sampler, compare, on_thread_clock, paired, percentiles, repeats, warm_up
from kdtool.exporting.sessions import caller, check_provider, cpu_name, failures, open_session
from kdtool.utils.progress import progress

LEAST_PAIRS = 6
"""The fewest pairs of samples, however little time there is."""


def measure_latency(
    model: str | Path | bytes,
    against: str | Path | bytes | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
    provider: str = "cpu",
    pairs: int = 50,
    seconds: float = 60.0,
    seed: int = 0,
    shown: Callable[[str, int], AbstractContextManager[Callable[[], None]]] = progress,
) -> dict[str, Any]:
    """Measure the latency of an ONNX model in onnxruntime, by default alone and on one thread of the CPU.

    ``model`` and ``against``, the model to compare with, are files or their bytes. Each gets random images of its own
    input size. ``provider`` is what runs them: ``cpu``, ``cuda``, ``tensorrt``, ``openvino``, ``coreml`` or ``qnn``. If
    ``pairs`` pairs of samples take more than ``seconds``, fewer are measured, but at least 6. ``shown`` shows progress.
    The models run in this process; `measure_contained` is for files of strangers.

    Returns:
        ``student`` and ``teacher``: ``p50_ms`` and ``p90_ms``, wall-clock milliseconds for ``batch`` images.
        ``ratio``: the time of ``model`` over that of ``against``, with ``ratio_low`` and ``ratio_high``, its 95 %
        interval (see `compare`). ``noise``: how far from 1 that interval reaches for two sessions of the same model; a
        ratio nearer to 1 than this is no evidence of a difference. ``clock``: ``thread-cpu``, or ``wall`` with more
        than one thread and on another provider than the CPU. ``cpu_ms``: the median of the student's time on the
        former, None on the latter. ``threads``, ``pairs`` (as measured), ``batch``, ``provider``, ``onnxruntime`` (its
        version) and ``cpu``. Without ``against`` the teacher and the ratio are None.

    Raises:
        UsageError: the installed onnxruntime does not have the provider.
        Error: onnxruntime cannot run a model.
    """
    import onnxruntime

    models = {"student": model, "again": model} | ({} if against is None else {"teacher": against})
    check_provider(provider)
    cpu = on_thread_clock(provider, threads)
    try:
        calls = {name: caller(open_session(source, threads, provider), batch, seed) for name, source in models.items()}
        measured = measure_calls(**calls, pairs=pairs, seconds=seconds, seed=seed, thread_clock=cpu, shown=shown)
    except failures() as error:
        raise Error(f"onnxruntime {onnxruntime.__version__} cannot run the model: {first_line(error)}") from error
    return {
        **measured,
        "threads": threads,
        "batch": batch,
        "provider": provider,
        "onnxruntime": onnxruntime.__version__,
        "cpu": cpu_name(),
    }


def measure_calls(
    student: Callable[[], Any],
    again: Callable[[], Any],
    teacher: Callable[[], Any] | None = None,
    *,
    pairs: int = 50,
    seconds: float = 60.0,
    seed: int = 0,
    thread_clock: bool = False,
    shown: Callable[[str, int], AbstractContextManager[Callable[[], None]]] = progress,
) -> dict[str, Any]:
    """Measure how long a call of a network takes in any runtime, by default alone.

    ``again`` runs the same network in a session of its own, ``teacher`` the network to compare with. With
    ``thread_clock`` the ratios are those of the CPU time of the calling thread, which has to do all the work.

    Returns:
        The entries of `measure_latency` from ``student`` to ``clock``, and ``pairs``.
    """
    calls = {"student": student, "again": again} | ({} if teacher is None else {"teacher": teacher})
    rivals = [name for name in ("teacher", "again") if name in calls]
    call_seconds = {name: warm_up(call, seconds / 20) for name, call in calls.items()}
    samplers = {name: Sampler(call, repeats(call_seconds[name])) for name, call in calls.items()}
    # A sample makes one call more than it times, see Sampler.
    round_seconds = sum(
        call_seconds[name] * (samplers[name].repeats + 1) for rival in rivals for name in ("student", rival)
    )
    pairs = max(min(pairs, int(seconds / round_seconds)), min(pairs, LEAST_PAIRS))
    with shown("latency", pairs * len(rivals)) as advance:
        times = {rival: paired(samplers["student"], samplers[rival], pairs, advance) for rival in rivals}
    column = 0 if thread_clock else 1
    ratio, low, high = compare(times[rivals[0]][0][:, column], times[rivals[0]][1][:, column], seed)
    _, noise_low, noise_high = compare(times["again"][0][:, column], times["again"][1][:, column], seed)
    alone = teacher is None
    return {
        "student": percentiles(times[rivals[0]][0][:, 1]),
        "teacher": None if alone else percentiles(times["teacher"][1][:, 1]),
        "ratio": None if alone else ratio,
        "ratio_low": None if alone else low,
        "ratio_high": None if alone else high,
        "noise": max(abs(noise_low - 1), abs(noise_high - 1)),
        "clock": "thread-cpu" if thread_clock else "wall",
        "cpu_ms": percentiles(times[rivals[0]][0][:, 0])["p50_ms"] if thread_clock else None,
        "pairs": pairs,
    }
