"""Copies of a network in several processes that stay equal: gradients, statistics and the weights they begin with."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdtool.errors import Error
from kdtool.models.conversion import digest
from kdtool.utils.processes import collected, count, decided, summed
from kdtool.utils.progress import say_once


class Replica:
    """A module whose gradients are the means over all processes; in a single process it is the module itself."""

    def __init__(self, module: nn.Module) -> None:
        """Replicate ``module``, which lies on its device; its parameters and buffers become those of the first."""
        self.module = module
        if count() < 2 or not any(parameter.requires_grad for parameter in module.parameters()):
            return
        from accelerate import Accelerator, PartialState
        from accelerate.utils import DistributedDataParallelKwargs

        # Statistics of batch-norm are averaged once in an epoch (`agree_on_statistics`).
        how = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
        # What is not given here is read from the environment: kdtool has options of its own for it.
        accelerator = Accelerator(
            cpu=PartialState().device.type == "cpu",
            mixed_precision="no",
            dynamo_backend="no",
            device_placement=False,
            kwargs_handlers=[how],
        )
        # The module lies where it has to, even if two processes share a device.
        os.environ["ACCELERATE_BYPASS_DEVICE_MAP"] = "true"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # accelerate names an option of torch by its former name
            self.module = accelerator.prepare_model(module)
        accelerator.free_memory()

    def __call__(self, *inputs: Any) -> Tensor:
        """Return the output of the module."""
        output: Tensor = self.module(*inputs)
        return output

    def exchanging(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of a pass; gradients are exchanged in the ``last`` one of a step."""
        alone = last or not isinstance(self.module, nn.parallel.DistributedDataParallel)
        return contextlib.nullcontext() if alone else self.module.no_sync()  # type: ignore[union-attr,operator]


@torch.no_grad()
def agree_on_statistics(modules: Iterable[nn.Module]) -> None:
    """Set the statistics of batch-norms to their means over all processes, and other buffers to the first one's."""
    if count() < 2:
        return
    for module in modules:
        norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
        own = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var) if tensor is not None]
        means = {id(tensor) for tensor in own}
        if own:
            flat = summed(torch.cat([tensor.float() for tensor in own])) / count()
            for tensor, mean in zip(own, flat.split([len(tensor) for tensor in own]), strict=True):
                tensor.copy_(mean)
        _take_over({name: buffer for name, buffer in module.named_buffers() if id(buffer) not in means})


@torch.no_grad()
def agree_on_weights(modules: Sequence[nn.Module]) -> None:
    """Set the weights of modules to those of the first process, where they differ in the last bits.

    Raises:
        Error: the processes have networks of different structures.
    """
    if count() < 2:
        return
    shapes = [[(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()] for module in modules]
    everywhere = collected((shapes, [digest(module) for module in modules]))
    if any(other != everywhere[0][0] for other, _ in everywhere):
        raise Error("the processes made networks of different structures; start again, or with one process")
    for number, module in enumerate(modules):
        if len({digests[number] for _, digests in everywhere}) > 1:
            _take_over(module.state_dict())


def _take_over(tensors: dict[str, Tensor]) -> None:
    """Set tensors, in place, to those of the first process."""
    if not tensors:
        return
    first = decided(lambda: {name: tensor.detach().cpu() for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        tensor.copy_(first[name])


@contextlib.contextmanager
def synchronised_norms(modules: Iterable[nn.Module], wanted: bool) -> Iterator[None]:
    """Let batch-norms use the statistics of the images of all processes while the block runs, if this is ``wanted``."""
    if not wanted or count() < 2:
        yield
        return
    parts = [part for module in modules for part in module.modules()]
    norms = [part for part in parts if isinstance(part, _BatchNorm)]
    device = next((weight.device.type for part in parts for weight in part.parameters()), "cpu")
    if norms and device == "cpu":
        say_once("--sync-batchnorm: torch has it on GPUs only; each process takes the statistics of its own images")
        norms = []
    before = [norm.__class__ for norm in norms]
    for norm in norms:
        norm.__class__ = _synchronised(type(norm))
    try:
        yield
    finally:
        for norm, kind in zip(norms, before, strict=True):
            norm.__class__ = kind


def _synchronised(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    """Return the class of a batch-norm with the statistics of all processes, and all else as ``kind`` has it."""
    from timm.layers import BatchNormAct2d, SyncBatchNormAct

    base = SyncBatchNormAct if issubclass(kind, BatchNormAct2d) else nn.SyncBatchNorm
    made: type[_BatchNorm] = type(kind.__name__, (base,), {"process_group": None})
    return made
