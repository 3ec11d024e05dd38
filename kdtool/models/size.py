"""How large a network is."""

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
from kdtool.utils.uncompiled import counting


def measure(network: Network) -> dict[str, int]:
    """Return the size of a network, as plain data.

    ``parameters`` counts the elements of all parameters, ``nonzero`` those that are not zero, ``macs`` the
    multiply-accumulates of one image: convolutions, linear layers and the matrix products of attention, half of
    what torch.utils.flop_counter counts as operations. Norms, activations and pools are not counted.
    """
    parameters = list(network.module.parameters())
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "nonzero": sum(int(parameter.detach().count_nonzero()) for parameter in parameters),
        "macs": macs(network.module, network.architecture.input),
    }


def step_of(network: Network, batch_size: int) -> tuple[int, int]:
    """Return the multiply-accumulates of a batch, and how many numbers its convolutions and linear layers put out."""
    outputs = 0

    def count(layer: nn.Module, given: object, output: Tensor) -> None:
        nonlocal outputs
        outputs += output.numel()

    hooks = [part.register_forward_hook(count) for part in network.module.modules() if isinstance(part, CONV_LINEAR)]
    try:
        work = macs(network.module, network.architecture.input)
    finally:
        for hook in hooks:
            hook.remove()
    return batch_size * work, batch_size * outputs


def macs(module: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the multiply-accumulates of one image of ``shape`` (channels, height, width)."""
    return int(_counted(module, shape).get_total_flops()) // 2


def macs_of_parts(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the multiply-accumulates of one image in every part of a network that has any, by the part's path."""
    counts = _counted(module, shape).get_flop_counts()
    # Paths begin with the name of the network's class there.
    return {path.partition(".")[2]: sum(found.values()) // 2 for path, found in counts.items() if "." in path}


def _counted(module: nn.Module, shape: tuple[int, int, int]) -> FlopCounterMode:
    first = next(module.parameters(), torch.zeros(0))
    image = torch.zeros(1, *shape, device=first.device, dtype=first.dtype)
    counter = FlopCounterMode(display=False)
    # Written out: fused attention on the CPU is unknown to the counter of some releases of PyTorch.
    written_out = sdpa_kernel(SDPBackend.MATH)
    with evaluating(module), _without_gradients(module), torch.no_grad(), written_out, counting(), counter:
        module(image)
    return counter


@contextlib.contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Let no parameter want a gradient: the counter cannot bear one that a module is given (CaiT's class token)."""
    wanting = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)
