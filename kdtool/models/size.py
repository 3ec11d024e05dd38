"""The size of a network: its parameters and its multiply-accumulates (MACs)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from kdtool.models.architecture import Network
from kdtool.models.hooks import evaluating, plain_attention
from kdtool.models.layers import CONV_LINEAR
from kdtool.models.used_weights import nonzero
from kdtool.utils.uncompiled import counting


def measure(network: Network) -> dict[str, int]:
    """Return the size of a network, as plain data.

    ``parameters`` counts the elements of all parameters, ``nonzero`` those that are not zero; where a layer computes
    its weights, the weights in use count (see `kdtool.models.used_weights`). ``macs`` counts the multiply-accumulates
    of one image in convolutions, linear and recurrent layers and the matrix products of attention. They are half of the
    operations that torch.utils.flop_counter counts. Norms, activations and pools are not counted, nor are products of
    weights alone, of which a parametrisation of `torch.nn.utils` computes the weights in use.
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
    counter = FlopCounterMode(display=False, custom_mapping=_unknown_to_torch())
    with (
        evaluating(module),
        _without_gradients(module),
        torch.no_grad(),
        # Attention as matrix products: the counter misses the fused operators of the CPU.
        sdpa_kernel(SDPBackend.MATH),
        plain_attention(),
        counting(),
        _computed_before(module),
        counter,
    ):
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


@contextlib.contextmanager
def _computed_before(module: nn.Module) -> Iterator[None]:
    """Compute the weights of parametrised layers now, and do not compute them again while the block runs."""
    with parametrize.cached():
        for part in module.modules():
            if parametrize.is_parametrized(part):
                assert isinstance(part.parametrizations, nn.ModuleDict)
                for name in part.parametrizations:
                    getattr(part, name)
        yield


def _unknown_to_torch() -> dict[Any, Callable[..., int]]:
    """Return formulas for operators that torch's counter does not know.

    They are recurrent and bilinear layers, deformable convolutions and products with vectors.
    """
    formulas: dict[Any, Callable[..., int]] = {
        torch.ops.aten.mkldnn_rnn_layer: lambda inputs, first, second, *_, **__: _of_steps(inputs, [first, second]),
        torch.ops.aten._cudnn_rnn: lambda inputs, weights, *_, **__: _of_steps(inputs, weights),
        torch.ops.aten._trilinear: lambda inputs, weight, *_, **__: 2 * math.prod(inputs[:-1]) * math.prod(weight),
        torch.ops.aten.dot: lambda vector, *_, **__: 2 * math.prod(vector),
        torch.ops.aten.mv: lambda matrix, *_, **__: 2 * math.prod(matrix),
        torch.ops.aten.addmv: lambda _, matrix, *__, **___: 2 * math.prod(matrix),
        torch.ops.aten.addbmm: lambda _, first, second, *__, **___: 2 * math.prod(first) * second[-1],
    }
    # It exists only if torchvision is imported.
    deformable = getattr(torch.ops.torchvision, "deform_conv2d", None)
    if deformable is not None:
        formulas[deformable] = lambda _, weight, *__, out_shape, **___: 2 * math.prod(out_shape) * math.prod(weight[1:])
    return formulas


def _of_steps(inputs: Sequence[int], weights: Sequence[Sequence[int]]) -> int:
    """Return the operations of a recurrent layer, which multiplies all of its matrices in every step of a sequence.

    ``inputs`` is the shape of the sequences, [..., features], ``weights`` are the shapes of matrices and biases.
    """
    return 2 * math.prod(inputs[:-1]) * sum(math.prod(shape) for shape in weights if len(shape) > 1)
