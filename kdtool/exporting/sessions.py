"""Sessions of onnxruntime: on which provider a file runs, and what it takes and gives.

This file, like the others that measure, needs numpy and onnxruntime alone of all that kdtool depends on.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kdtool.errors import Error, UsageError
from kdtool.exporting.providers import PROVIDERS
from kdtool.utils.formatting import printable


def check_provider(provider: str) -> None:
    """Check that the installed onnxruntime has a provider.

    Raises:
        UsageError: it does not; the message names those that it has, and the package to install.
    """
    import onnxruntime

    if provider not in PROVIDERS:
        raise UsageError(f"--provider {provider}: there is none of that name; the providers are {', '.join(PROVIDERS)}")
    name, package = PROVIDERS[provider]
    available = onnxruntime.get_available_providers()
    if name not in available:
        has = ", ".join(key for key, (full, _) in PROVIDERS.items() if full in available)
        raise UsageError(
            f"--provider {provider}: onnxruntime {onnxruntime.__version__} has no such provider here (it has: {has}); "
            f"install {package} in place of onnxruntime"
        )


BATCH = "batch"
"""The name of the dimension of a file's input and output that counts images."""


def open_session(model: str | Path | bytes, threads: int = 1, provider: str = "cpu", batch: int | None = None) -> Any:
    """Return an onnxruntime session with all graph optimisations and ``threads`` threads.

    With ``batch`` the session takes batches of that size alone, and onnxruntime computes all shapes beforehand.

    Raises:
        Error: the provider cannot be used, so that onnxruntime would run the model on the CPU.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Threads that spin while they wait would slow down the other session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if batch is not None:
        options.add_free_dimension_override_by_name(BATCH, batch)
    name = PROVIDERS[provider][0]
    own = {"num_of_threads": str(threads)} if provider == "openvino" else {}
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=[(name, own)])
    # What a provider cannot load, onnxruntime runs on the CPU without an error.
    if name not in session.get_providers():
        raise Error(
            f"--provider {provider}: onnxruntime cannot use it here and would run on the CPU; check its libraries and "
            "its device"
        )
    return session


def failures() -> tuple[type[Exception], ...]:
    """Return the exception classes of onnxruntime, which have no common base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))


def caller(session: Any, batch: int, seed: int) -> Callable[[], Any]:
    """Return a function that runs the session on ``batch`` random images of its own input size.

    Raises:
        Error: the model's input is not one batch of float32 images of a fixed size, or a batch of another size.
    """
    inputs = session.get_inputs()
    sizes = inputs[0].shape[1:] if inputs else []
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not all(isinstance(size, int) for size in sizes):
        raise Error(
            f"the model takes {described(inputs)}; its latency is measured with float32 images of one fixed size"
        )
    fixed = inputs[0].shape[0]
    if isinstance(fixed, int) and fixed != batch:
        raise Error(f"the model takes batches of {fixed} images only; measure it with --batch {fixed}")
    images = np.random.default_rng(seed).standard_normal((batch, *sizes)).astype(np.float32)
    outputs, feed = [output.name for output in session.get_outputs()], {inputs[0].name: images}
    return lambda: session.run(outputs, feed)


def described(tensors: Any) -> str:
    """Return names, types and shapes of a session's inputs or outputs as text, up to eight of them."""
    texts = [printable(f"{tensor.name} {tensor.type} {tensor.shape}") for tensor in tensors[:8]]
    return ", ".join(texts) or "nothing"


def cpu_name() -> str:
    """Return the processor's name, or its architecture if the system does not name it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
