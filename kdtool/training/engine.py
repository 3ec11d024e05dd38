"""The device, the precision and the number of threads in which a phase runs; it keeps no state in the process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.models.memory_format import takes_channels_last
from kdtool.models.size import step_of
from kdtool.training.options import Training
from kdtool.training.threads import TIMED, Threads
from kdtool.utils.memory import Recent, keep_freed_memory
from kdtool.utils.processes import device_of_process

# Below this, the layers of a step are too small for bf16 to win what the conversions cost (benchmarks/precision.py).
# Matrix units (AMX) win it back sooner.
BF16_PAYS_FROM_MACS = 500_000_000
BF16_PAYS_FROM_MACS_WITH_AMX = 50_000_000

# Below this many multiply-accumulates for each number that a layer puts out, a step is spent on moving numbers, which
# the conversions make longer: such are small networks of depthwise convolutions.
BF16_PAYS_FROM_MACS_PER_OUTPUT = 90
BF16_PAYS_FROM_MACS_PER_OUTPUT_WITH_AMX = 55

Result = TypeVar("Result")

_MIXED = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Engine:
    """A device and a precision, and the steps of an optimiser in them."""

    def __init__(self, training: Training, macs: int, outputs: int = 0, *, channels_last: bool = True) -> None:
        """Set up for steps of ``macs`` multiply-accumulates and ``outputs`` numbers that layers put out.

        Both count the forward pass of one batch. ``channels_last`` says whether every network that runs here accepts
        that memory format (see `engine_for`).

        Raises:
            UsageError: there is no such device, or it cannot do that precision.
        """
        self.device = _device(training.device)
        self.thread_option = training.threads
        self.records = self.device.type == "cuda" and training.cuda_graphs != "off"
        self.records_all = training.cuda_graphs == "on"
        if self.device.type == "cpu":
            keep_freed_memory()
        self.precision = _precision(training.precision, self.device, macs, outputs)
        # float16 has so few exponents that small gradients become 0, unless the loss is scaled.
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None
        # A must in bf16, and mostly faster in fp32: 1.03 to 1.69 times in benchmarks/precision.py.
        self.channels_last = channels_last
        # A compiler takes layers as they are, and a GPU has other kernels.
        self.fast_layers = self.device.type == "cpu" and not training.compile

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, in the memory format that is fast there."""
        module.to(self.device)
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module

    def threads(self, timed: int = TIMED, *, shared: bool = False) -> Threads:
        """Return the context of the number of threads that is fastest; each is tried in ``timed`` steps.

        If the steps are ``shared`` by several processes, the first one chooses for all.
        """
        return Threads(self.thread_option, self.device, timed, shared=shared)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run in the engine's precision."""
        if self.precision not in _MIXED:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_MIXED[self.precision])

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss, a scalar tensor; in fp16 those of the scaled loss."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, optimizer: torch.optim.Optimizer, clip: Callable[[], None] | None = None) -> None:
        """Take a step of the optimiser and clear the gradients; ``clip`` is called before, and may change them."""
        if clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(optimizer)
            clip()
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """Return what the scaling of the loss remembers; empty but in fp16."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned."""
        if self.scaler is not None:
            self.scaler.load_state_dict(state)


def engine_for(training: Training, batch_size: int, network: Network, *others: Network) -> Engine:
    """Return the engine for steps of a network on ``batch_size`` images; ``others`` run in the same steps.

    Raises:
        UsageError: there is no such device, or it cannot do that precision.
    """
    channels_last = all(_known(takes_channels_last, member) for member in (network, *others))
    macs, outputs = _known(partial(step_of, batch_size=1), network)
    return Engine(training, batch_size * macs, batch_size * outputs, channels_last=channels_last)


# Phases and measurements ask for what was found of a structure again and again.
_facts: Recent[Any, Any] = Recent(256)


def _known(find: Callable[[Network], Result], network: Network) -> Result:
    """Return what a function finds of a network; it runs once for all networks of the same layers and code."""
    code = frozenset(type(part).forward for part in network.module.modules())
    shapes = tuple(tensor.shape for tensor in network.module.state_dict().values())
    name = getattr(find, "func", find)
    key = (name, repr(network.architecture), repr(network.module), tuple(network.architecture.input), shapes, code)
    if key not in _facts:
        _facts[key] = find(network)
    found: Result = _facts[key]
    return found


def _device(name: str) -> torch.device:
    own = None if name == "cpu" else device_of_process()
    if own is not None:
        return own
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
    return "bf16" if _has_bf16(device) and (device.type == "cuda" or _bf16_pays(macs, outputs)) else "fp32"


def _bf16_pays(macs: int, outputs: int) -> bool:
    """Return whether a CPU with bf16 takes steps of so much work faster in it."""
    if _cpu_amx():
        return macs >= max(BF16_PAYS_FROM_MACS_WITH_AMX, BF16_PAYS_FROM_MACS_PER_OUTPUT_WITH_AMX * outputs)
    return macs >= max(BF16_PAYS_FROM_MACS, BF16_PAYS_FROM_MACS_PER_OUTPUT * outputs)


def has_bf16(name: str) -> bool:
    """Return whether the device of the option ``device`` multiplies matrices of bf16 faster than those of fp32.

    Raises:
        UsageError: there is no such device.
    """
    return _has_bf16(_device(name))


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_bf16()


def _cpu_bf16() -> bool:
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(torch.backends.cpu.get_cpu_capability() == "AVX512" and check and check())


def _cpu_amx() -> bool:
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(check and check())
