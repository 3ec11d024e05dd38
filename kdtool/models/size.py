"""The size of a network: its parameters and its multiply-accumulates (MACs)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdtool.models.architecture import Network
from kdtool.models.hooks import evaluating
from kdtool.models.layers import CONV_LINEAR
from kdtool.models.used_weights import nonzero
from kdtool.utils.uncompiled import counting


def measure(network: Network) -> dict[str, int]:
    """Return the size of a network, as plain data.

    ``parameters`` counts the elements of all parameters, ``nonzero`` those that are not zero; where a layer computes
    its weights, the weights in use count (see `kdtool.models.used_weights`). ``macs`` counts the multiply-accumulates
    of one image in convolutions, linear layers and the matrix products of attention. They are half of the operations
    that torch.utils.flop_counter counts. Norms, activations and pools are not counted.
    """
    return {
        "parameters": sum(parameter.numel() for parameter in network.module.parameters()),
        "nonzero": nonzero(network.module),
        "macs": macs(network.module, network.architecture.input),
    }


def step_of(network: Network, batch_size: int) -> tuple[int, int]:
    """Return the MACs of a batch, and the number of elements that its convolutions and linear layers output."""
    outputs = 0

    def count(layer: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal outputs
        outputs += output.numel()

    hooks = [part.register_forward_hook(count) for part in network.module.modules() if isinstance(part, CONV_LINEAR)]
    try:
        image_macs = macs(network.module, network.architecture.input)
    finally:
        for hook in hooks:
            hook.remove()
    return batch_size * image_macs, batch_size * outputs


def macs(module: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the MACs of one image of ``shape`` (channels, height, width)."""
    return int(_count_flops(module, shape).get_total_flops()) // 2


def macs_of_parts(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the MACs of one image of ``shape`` in every submodule that has any, by the submodule's path."""
    counts = _count_flops(module, shape).get_flop_counts()
    # The counter's paths begin with the name of the network's class.
    return {path.partition(".")[2]: sum(by_op.values()) // 2 for path, by_op in counts.items() if "." in path}


def _count_flops(module: nn.Module, shape: tuple[int, int, int]) -> FlopCounterMode:
    first = next(module.parameters(), torch.zeros(0))
    image = torch.zeros(1, *shape, device=first.device, dtype=first.dtype)
    counter = FlopCounterMode(display=False)
    # Attention as plain matrix products: in some releases of PyTorch the counter misses fused attention on the CPU.
    plain_attention = sdpa_kernel(SDPBackend.MATH)
    with evaluating(module), _without_gradients(module), torch.no_grad(), plain_attention, counting(), counter:
        module(image)
    return counter


@contextlib.contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Let no parameter require a gradient: the counter fails on a module whose input does (CaiT's class token)."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
