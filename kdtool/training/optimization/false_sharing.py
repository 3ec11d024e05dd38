"""Batch-norms of few channels on one thread, where several would slow each other down.

torch adds up the statistics of maps whose channels come last in one row of numbers for each thread, a number for each
channel. If the rows do not end where lines of the processor's cache do, which hold 16 numbers, two threads write to the
same line for every pixel, and each waits for the other: known as false sharing. Then the backward pass of 8 to 100
channels takes 2 to 10 times as long on two threads as on one. Networks that were narrowed or pruned have such layers.

The numbers are those of one thread. benchmarks/batch_norms.py measures what it brings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Numbers in a line of the cache.
LINE = 16

# With as many channels, rows share so few of their lines that several threads are faster.
ENOUGH_CHANNELS = 256

# The forward pass moves 8 numbers at once: whole vectors seldom meet in a line. In bfloat16 it is as fast either way.
VECTOR = 8
ENOUGH_CHANNELS_FORWARD = 64

# How many steps behind the output of such a layer its batch-norm may be: timm's layers end with an activation.
STEPS_BEHIND = 3


@contextlib.contextmanager
def without_false_sharing(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let the batch-norms of modules that would share lines of the cache compute on one thread, in the block."""
    turns, hooks = _Turns(), []
    for layer in (layer for module in modules for layer in module.modules() if shares(layer)):
        hooks.append(layer.register_forward_pre_hook(turns.before_forward))
        hooks.append(layer.register_forward_hook(turns.after_forward))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        turns.leave()  # a pass that failed has not


def shares(layer: nn.Module) -> bool:
    """Return whether threads would share lines in the backward pass of a layer, if its channels come last."""
    return isinstance(layer, nn.BatchNorm2d) and layer.num_features % LINE > 0 and layer.num_features < ENOUGH_CHANNELS


def _shares_forward(images: Tensor) -> bool:
    channels = images.shape[1]
    return images.dtype == torch.float32 and channels % VECTOR > 0 and channels < ENOUGH_CHANNELS_FORWARD


class _Turns:
    """Goes to one thread and back; in copies of a layer, which may be exported, it does nothing."""

    def __init__(self, *, idle: bool = False) -> None:
        self.idle = idle
        self.threads = 0
        """The number to go back to; 0 if it was not changed."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Turns:
        return _Turns(idle=True)

    def before_forward(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not self.idle and _channels_last(*inputs) and _shares_forward(inputs[0]):
            self.enter()

    def after_forward(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        self.leave()
        if self.idle or torch.get_num_threads() == 1 or not layer.training or not _channels_last(*inputs):
            return
        node = getattr(output, "grad_fn", None)  # a subclass may return something else
        for _ in range(STEPS_BEHIND):
            if node is None:
                return
            if node.name() == "NativeBatchNormBackward0":
                node.register_prehook(self.enter)
                node.register_hook(self.leave)
                return
            node = node.next_functions[0][0] if node.next_functions else None

    def enter(self, *gradients: Any) -> None:
        if torch.get_num_threads() > 1:
            self.threads = torch.get_num_threads()
            torch.set_num_threads(1)

    def leave(self, *gradients: Any) -> None:
        if self.threads:
            torch.set_num_threads(self.threads)
            self.threads = 0


def _channels_last(*inputs: Any) -> bool:
    """Return whether torch computes with the channels last in memory; images that are given by name stay unseen."""
    images = inputs[0] if inputs else None
    if not isinstance(images, Tensor) or images.dim() != 4:
        return False
    return images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
