"""Several processes that train together, as torchrun and ``accelerate launch`` start them.

Every process runs the same command. Inside `together` they exchange data with the functions below, which all of them
have to call in the same order; in a single process, and outside `together`, the functions return what they are given.
The first process alone writes files and speaks. Nothing is imported from accelerate unless there are several processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from kdtool.errors import Error, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Result = TypeVar("Result")

# A process that waits for longer than this takes the others for lost. The first one may measure or write meanwhile.
PATIENCE = timedelta(minutes=30)

# How long a process that fails looks for the others' message; the launcher ends all of them soon.
SECONDS_FOR_A_WORD = 10

# How accelerate is told to share a network out, from the environment or its own configuration; kdtool keeps it whole.
OTHER_WAYS = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG")

_FAILURES = "kdtool/failures"

_joined: ContextVar[bool] = ContextVar("joined", default=False)
"""Whether the code that runs now is one that all processes run in the same order."""


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launched() -> int:
    """Return how many processes the launcher started; 1 without one."""
    return _number("WORLD_SIZE", 1)


def is_first() -> bool:
    """Return whether this is the process that writes and speaks; True without a launcher."""
    return launched() < 2 or _number("RANK", 0) == 0


# Otherwise each process would warn of the same.
logging.getLogger("kdtool").addFilter(lambda record: is_first())


def count() -> int:
    """Return how many processes work together on what runs now; 1 outside `together`."""
    return launched() if _joined.get() else 1


def rank() -> int:
    """Return the number of this process among those that work together, from 0 on."""
    return _number("RANK", 0) if count() > 1 else 0


def node() -> int:
    """Return the number of this machine, from 0 on."""
    return _number("GROUP_RANK", 0) if _numbered() else rank() // count_here()


def nodes() -> int:
    """Return on how many machines the processes run."""
    return _number("GROUP_WORLD_SIZE", 1) if _numbered() else count() // count_here()


def leads_node() -> bool:
    """Return whether this is the first of the processes on its machine that work together."""
    return (_number("LOCAL_RANK", 0) if _numbered() else rank() % count_here()) == 0


def _numbered() -> bool:
    """Return whether the launcher numbers the machines, as torchrun does; else all have equally many processes."""
    return count() > 1 and all(name in os.environ for name in ("GROUP_RANK", "GROUP_WORLD_SIZE", "LOCAL_RANK"))


def count_here() -> int:
    """Return how many of the processes that work together run on this machine."""
    return max(1, min(_number("LOCAL_WORLD_SIZE", count()), count()))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


@contextlib.contextmanager
def together(device: str = "auto") -> Iterator[None]:
    """Let the processes that a launcher started work together while the block runs; without one nothing changes.

    The first call waits until all of them are there. ``device`` is the option of a training.

    Raises:
        Error: the processes cannot find each other.
        UsageError: accelerate is not installed or is to share the network out, the launcher did not say where the first
            process is, or an earlier block used another device.
    """
    if launched() < 2:
        yield
        return
    _start(device)
    token = _joined.set(True)
    try:
        yield
    finally:
        _joined.reset(token)


def device_of_process() -> torch.device | None:
    """Return the accelerator of this process, or None where the processes compute on the CPU or there is but one."""
    if count() < 2:
        return None
    from accelerate import PartialState

    device: torch.device = PartialState().device
    return None if device.type == "cpu" else device


def _start(device: str) -> None:
    """Connect the processes, once."""
    import torch

    try:
        from accelerate import PartialState
    except ImportError as error:
        raise UsageError(
            f"{launched()} processes: needs accelerate; pip install 'kdtool[distributed]', or start one process"
        ) from error
    for name in (f"ACCELERATE_USE_{way}" for way in OTHER_WAYS):
        if os.environ.get(name, "").lower() == "true":
            raise UsageError(
                f"{name}=true: kdtool trains with DistributedDataParallel alone; unset it, or change accelerate's "
                "configuration (accelerate config)"
            )
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE={launched()}: the launcher did not set {missing[0]}; start kdtool with torchrun or accelerate "
            "launch, or unset WORLD_SIZE for a single process"
        )
    cpu = device == "cpu" or not torch.cuda.is_available()
    if not cpu and ":" in device:
        raise UsageError(f"--device {device}: each of {launched()} processes takes a device of its own; give cuda")
    if PartialState._shared_state:
        if cpu != (PartialState().device.type == "cpu"):
            raise UsageError(f"--device {device}: an earlier step took another; give all steps the same --device")
        return
    os.environ.setdefault("LOCAL_RANK", os.environ["RANK"])
    # NCCL refuses two processes on one device.
    shared = not cpu and _number("LOCAL_WORLD_SIZE", launched()) > torch.cuda.device_count()
    try:
        PartialState(cpu=cpu, timeout=PATIENCE, **({"backend": "gloo"} if shared else {}))
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise Error(f"the {launched()} processes did not find each other at {where}: {error}") from error


def separate() -> None:
    """Close the connections between the processes, if there are any."""
    if launched() < 2 or "accelerate" not in sys.modules:
        return
    from accelerate import PartialState

    if PartialState._shared_state:
        PartialState().destroy_process_group()


def decided(function: Callable[[], Result]) -> Result:
    """Return what ``function`` returns in the first process, in all of them; the others do not call it.

    So every process goes on alike after what depends on time, on random numbers or on a disk. Inside ``function`` the
    first process is alone. An error that it raises is raised in all processes.
    """
    if count() < 2:
        return function()
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [None]
    if rank() == 0:
        token = _joined.set(False)
        try:
            outcome = [(True, function())]
        except Exception as error:
            outcome = [(False, error)]
        finally:
            _joined.reset(token)
    broadcast_object_list(outcome, from_process=0)
    done, result = outcome[0]
    if not done:
        raise result
    returned: Result = result
    return returned


def collected(value: Result) -> list[Result]:
    """Return the values of all processes, in the order of their numbers; plain data."""
    if count() < 2:
        return [value]
    from accelerate.utils import gather_object

    values: list[Result] = gather_object([value])
    return values


def everyone(flag: bool) -> bool:
    """Return whether the flag is set in all processes; this also waits for all of them."""
    return all(collected(flag))


def summed(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; it has the same shape and type in each of them."""
    if count() < 2:
        return tensor
    from accelerate.utils import reduce

    total: Tensor = reduce(_sendable(tensor), "sum")
    return total.to(tensor.device)


def gathered(tensor: Tensor) -> Tensor:
    """Return the rows of a tensor of all processes, those of the first process first.

    The tensors may differ in their number of rows, [rows, ...]. There is no gradient.
    """
    if count() < 2:
        return tensor
    import torch
    from accelerate.utils import gather

    sent = _sendable(tensor.detach())
    rows: list[int] = gather(torch.tensor([len(sent)], device=sent.device)).tolist()
    most = max(rows)
    if len(sent) < most:
        sent = torch.cat([sent, sent.new_zeros(most - len(sent), *sent.shape[1:])])
    if not sent.numel():
        return tensor
    parts = gather(sent.contiguous()).split(most)
    return torch.cat([part[:own] for part, own in zip(parts, rows, strict=True)]).to(tensor.device)


def _sendable(tensor: Tensor) -> Tensor:
    """Return a tensor where the processes can exchange it."""
    device = device_of_process()
    return tensor if device is None else tensor.to(device)


def first_to_fail() -> bool:
    """Return whether no other process has failed before this one; say so to the others.

    So one process prints its error, and the others, which fail because it is gone or for the same reason, are silent.
    """
    if launched() < 2:
        return True
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        socket.create_connection((host, port), timeout=SECONDS_FOR_A_WORD).close()  # torch is not silent if it fails
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=SECONDS_FOR_A_WORD))
        earlier: int = store.add(f"{_FAILURES}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1)
        return earlier == 1
    except (KeyError, ValueError, OSError, RuntimeError):
        return True  # nobody can be asked


def is_lost_process(error: BaseException) -> bool:
    """Return whether an error says that another process does not answer."""
    if launched() < 2 or not isinstance(error, RuntimeError):
        return False
    return any(word in str(error).lower() for word in ("gloo", "nccl", "connection", "tcpstore"))
