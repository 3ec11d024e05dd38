"""Where and in which precision a network runs: accelerate, set up from the training options."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.models.memory_format import takes_channels_last
from kdtool.models.size import step_of
from kdtool.training.options import Training

# Below this, the layers of a step are too small for bf16 to win what the conversions cost (benchmarks/precision.py).
BF16_PAYS_FROM_MACS = 500_000_000

# Below this many multiply-accumulates for each number that a layer puts out, a step is spent on moving numbers: such
# are networks of depthwise convolutions, which are slower in bf16.
BF16_PAYS_FROM_MACS_PER_OUTPUT = 90

# Below this, threads wait for each other longer than they compute.
THREADS_PAY_FROM_MACS = 2_500_000_000


class Engine:
    """A device, a precision and the accelerator that runs a phase in them."""

    def __init__(self, training: Training, macs: int, outputs: int = 0, *, channels_last: bool = True) -> None:
        """Set up for steps of ``macs`` multiply-accumulates and ``outputs`` of layers (forward, one batch);
        ``channels_last`` says whether all that runs here takes that (see `engine_for`).

        Raises:
            UsageError: there is no such device, or it cannot do that precision.
        """
        device = _device(training.device)
        self.macs = macs
        self.precision = _precision(training.precision, device, macs, outputs)
        mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[self.precision]
        # accelerate keeps its device and precision in the process; each phase may want its own.
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=device.type == "cpu")
        if self.accelerator.num_processes > 1:
            raise UsageError("kdtool trains in one process; start it without torchrun or a launcher")
        self.device: torch.device = device
        # In bf16 a must, and in fp32 mostly quicker: 1.03 to 1.69 times in benchmarks/precision.py.
        self.channels_last = channels_last

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, in the memory format that is fast there."""
        module.to(self.device)
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module

    @contextlib.contextmanager
    def threads(self) -> Iterator[None]:
        """Use one thread while the block runs, where more would only wait for each other."""
        before = torch.get_num_threads()
        if 0 < self.macs < THREADS_PAY_FROM_MACS:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def prepare(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return the optimiser as this precision needs it: fp16 scales the loss, the others take it as it is."""
        prepared: torch.optim.Optimizer = optimizer
        if self.accelerator.scaler is not None:
            prepared = self.accelerator.prepare_optimizer(optimizer)
        return prepared

    def backward(self, loss: Tensor) -> None:
        """Compute gradients; accelerate's own backward looks for a package on the disk in every step."""
        scaler = self.accelerator.scaler
        (loss if scaler is None else scaler.scale(loss)).backward()

    def autocast(self) -> AbstractContextManager[Any]:
        """Run forward passes in the engine's precision."""
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context


def engine_for(training: Training, batch_size: int, network: Network, *others: Network) -> Engine:
    """Return the engine for steps of a network on ``batch_size`` images; ``others`` run in the same steps.

    Raises:
        UsageError: there is no such device, or it cannot do that precision.
    """
    channels_last = all(takes_channels_last(one) for one in (network, *others))
    return Engine(training, *step_of(network, batch_size), channels_last=channels_last)


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: there is no such device here; try auto or cpu") from error
    return device


def _precision(name: str, device: torch.device, macs: int, outputs: int) -> str:
    if name == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16: needs a GPU; use bf16 or fp32 on the CPU")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = device.type == "cpu" and _cpu_bf16()
    pays = macs >= max(BF16_PAYS_FROM_MACS, BF16_PAYS_FROM_MACS_PER_OUTPUT * outputs)
    return "bf16" if native and pays else "fp32"


def _cpu_bf16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(torch.backends.cpu.get_cpu_capability() == "AVX512" and check and check())
