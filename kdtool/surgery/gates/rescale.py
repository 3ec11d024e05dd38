"""How large weights are where a batch-norm makes that of no account."""

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
    """Return a copy whose layers before batch-norms have weights as large (root mean square) as the teacher's.

    Its outputs are the same, eps aside: with c w in the place of w a batch-norm is given c y in the place of y, and
    with the statistics c mean and c^2 var it makes the same of that. But learning is not: the gradient with respect to
    c w is 1 / c of that with respect to w, so that weights a tenth as large change a hundred times as much in
    proportion in one step of SGD (van Laarhoven, 2017, arXiv:1706.05350). Layers of the same path are compared.
    """
    module = copy.deepcopy(network.module)
    shape = network.architecture.input
    layers, theirs = dict(module.named_modules()), dict(teacher.module.named_modules())
    factors: dict[nn.Module, float] = {}
    with torch.no_grad():
        for path, norm in _norms_behind(module, shape).items():
            weight: Any = layers[path].weight
            size = weight.square().mean().sqrt()
            if path in theirs and size > 0:
                factor = float(theirs[path].weight.cpu().square().mean().sqrt() / size)  # type: ignore[union-attr,operator]
                if factor > 0:
                    factors[layers[norm]] = factor
                    _scale(layers[path], layers[norm], factor)
    return Network(network.architecture, module) if _same(network.module, module, factors, shape) else network


def _scale(layer: nn.Module, norm: nn.Module, factor: float) -> None:
    for tensor in layer._parameters.values():
        if tensor is not None:
            tensor.mul_(factor)
    norm.running_mean.mul_(factor)  # type: ignore[union-attr,operator]
    norm.running_var.mul_(factor**2)  # type: ignore[union-attr,operator]


def _norms_behind(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, str]:
    """Return for each convolution or linear layer whose output a batch-norm is given as it is the path of that norm."""
    made: dict[int, tuple[str, Tensor]] = {}
    found: dict[str, str] = {}
    calls: Counter[str] = Counter()
    hooks = []

    def make(path: str) -> Any:
        def note(layer: nn.Module, given: Any, output: Tensor) -> None:
            calls[path] += 1
            made[id(output)] = path, output  # which is held, so that no other has its number

        return note

    def take(path: str) -> Any:
        def note(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            calls[path] += 1
            if id(given[0]) in made:
                found[made[id(given[0])][0]] = path

        return note

    for path, part in module.named_modules():
        if isinstance(part, CONV_LINEAR):
            hooks.append(part.register_forward_hook(make(path)))
        elif isinstance(part, _BatchNorm) and part.track_running_stats:
            hooks.append(part.register_forward_pre_hook(take(path)))
    try:
        with evaluating(module), torch.no_grad():
            module(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)))
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: norm for layer, norm in found.items() if calls[layer] == calls[norm] == 1}


def _same(before: nn.Module, after: nn.Module, factors: dict[nn.Module, float], shape: tuple[int, int, int]) -> bool:
    """Whether nothing else listens to the layers that were scaled: with eps scaled as well, outputs are the same."""
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))
    whole = {norm: norm.eps for norm in factors}
    for norm, factor in factors.items():
        norm.eps = whole[norm] * factor**2  # type: ignore[assignment,operator]
    try:
        with evaluating(before), evaluating(after), torch.no_grad():
            return agree(after(images), before(images))
    finally:
        for norm, eps in whole.items():
            norm.eps = eps
