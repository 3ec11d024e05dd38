"""Rescale weights before batch-norms, where their size changes the training but not the outputs."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdtool.models.architecture import Network
from kdtool.models.hooks import evaluating
from kdtool.models.layers import CONV_LINEAR
from kdtool.surgery.channels.verify import agree


def scaled_like(network: Network, teacher: Network) -> Network:
    """Return a copy in which the weights before batch-norms have the root mean square of the teacher's weights.

    Layers with the same path are compared. Apart from eps, the outputs do not change: with c w instead of w, the
    batch-norm receives c y instead of y, and with the statistics c mean and c^2 var it returns the same as before. The
    training does change: the gradient with respect to c w is 1 / c of that with respect to w, so weights that are a
    tenth as large change by a hundred times as much, in proportion, in one step of SGD (van Laarhoven, 2017,
    arXiv:1706.05350). If the outputs did change, the network itself is returned.
    """
    module = copy.deepcopy(network.module)
    shape = network.architecture.input
    layers, teacher_layers = dict(module.named_modules()), dict(teacher.module.named_modules())
    factors: dict[nn.Module, float] = {}
    with torch.no_grad():
        for path, norm in _norms_behind(module, shape).items():
            weight: Any = layers[path].weight
            size = weight.square().mean().sqrt()
            if path in teacher_layers and size > 0:
                target: Any = teacher_layers[path].weight
                factor = float(target.cpu().square().mean().sqrt() / size)
                if factor > 0:
                    factors[layers[norm]] = factor
                    _scale(layers[path], layers[norm], factor)
    return Network(network.architecture, module) if _same_outputs(network.module, module, factors, shape) else network


def _scale(layer: nn.Module, norm: nn.Module, factor: float) -> None:
    """Multiply the parameters of a layer by a factor and fit the statistics of the batch-norm behind it, in place."""
    for tensor in layer._parameters.values():
        if tensor is not None:
            tensor.mul_(factor)
    norm.running_mean.mul_(factor)  # type: ignore[union-attr,operator]
    norm.running_var.mul_(factor**2)  # type: ignore[union-attr,operator]


def _norms_behind(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, str]:
    """Return the path of the batch-norm directly behind a convolution or linear layer, by the path of the layer.

    Only layers and norms that the network calls once are included.
    """
    outputs: dict[int, tuple[str, Tensor]] = {}
    norms: dict[str, str] = {}
    calls: Counter[str] = Counter()
    hooks = []

    def layer_hook(path: str) -> Any:
        def record(layer: nn.Module, args: Any, output: Tensor) -> None:
            calls[path] += 1
            outputs[id(output)] = path, output  # keeps the tensor alive, so that no other tensor gets its id

        return record

    def norm_hook(path: str) -> Any:
        def record(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            calls[path] += 1
            if id(args[0]) in outputs:
                norms[outputs[id(args[0])][0]] = path

        return record

    for path, part in module.named_modules():
        if isinstance(part, CONV_LINEAR):
            hooks.append(part.register_forward_hook(layer_hook(path)))
        elif isinstance(part, _BatchNorm) and part.track_running_stats:
            hooks.append(part.register_forward_pre_hook(norm_hook(path)))
    try:
        with evaluating(module), torch.no_grad():
            module(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)))
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: norm for layer, norm in norms.items() if calls[layer] == calls[norm] == 1}


def _same_outputs(
    before: nn.Module, after: nn.Module, factors: dict[nn.Module, float], shape: tuple[int, int, int]
) -> bool:
    """Return whether the outputs are the same with the eps of the norms scaled as well.

    They differ if something other than the norm reads the output of a layer that was scaled.
    """
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    own_eps = {norm: norm.eps for norm in factors}
    for norm, factor in factors.items():
        norm.eps = own_eps[norm] * factor**2  # type: ignore[assignment,operator]
    try:
        with evaluating(before), evaluating(after), torch.no_grad():
            return agree(after(images), before(images))
    finally:
        for norm, eps in own_eps.items():
            norm.eps = eps
