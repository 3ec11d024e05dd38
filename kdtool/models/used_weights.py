"""The weights that layers multiply with, where these are not the parameters that are stored.

A layer may compute its weights in every forward pass: standardised (Qiao et al., 2019, arXiv:1903.10520), spectrally
normalised or split into size and direction by `torch.nn.utils`, or in ways of its own. Zeros of the stored parameters
are then no zeros of the weights in use, so that whatever is said about weights is said of those found here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from kdtool.errors import FAILURES
from kdtool.models.hooks import evaluating
from kdtool.models.layers import CONV_LINEAR

# Functions whose second argument is multiplied with the first.
_PRODUCTS = frozenset(
    {
        *(F.conv1d, F.conv2d, F.conv3d, F.linear),
        *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    }
)

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)

# The forward methods that are known to use the parameter ``weight`` as it is.
_PLAIN = frozenset({nn.Linear.forward, *(kind.forward for kind in _CONVOLUTIONS)})

_PLAIN_CONV = frozenset(getattr(kind, "_conv_forward", None) for kind in _CONVOLUTIONS)

# How many layers a message names.
_SHOWN = 3


class _Watch(TorchFunctionMode):
    """Remembers the weights of the convolutions and matrix products that run."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _PRODUCTS:
            self.weights.append(kwargs["weight"] if "weight" in kwargs else args[1])
        return func(*args, **kwargs)


def used_weight(layer: nn.Module) -> Tensor | None:
    """Return the weight that a convolution or linear layer multiplies with in eval mode.

    It is the parameter itself if the layer uses that as it is. None if the layer multiplies with several weights, or
    in a way that is not known.
    """
    own = layer._parameters.get("weight")
    if own is not None and _is_plain(layer):
        return own
    watch = _Watch()
    try:
        with torch.no_grad(), evaluating(layer), watch:
            layer(_input_of(layer))
    except FAILURES:
        pass  # what comes after the product is of no interest
    weights = {id(weight): weight for weight in watch.weights}
    return next(iter(weights.values())) if len(weights) == 1 else None


def keep_used_weights(layer: nn.Module, kept: list[Tensor]) -> None:
    """Change a layer that computes its weight so that each forward appends the weight in use to ``kept``.

    If gradients are computed, the weight keeps its own.
    """
    forward = layer.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        with _Watch() as watch:
            outputs = forward(*args, **kwargs)
        for weight in watch.weights:
            if weight.requires_grad:
                weight.retain_grad()
            kept.append(weight)
        return outputs

    layer.forward = watched  # type: ignore[method-assign]


def _is_plain(layer: nn.Module) -> bool:
    """Return whether a layer is known to use its parameter ``weight`` as it is, without running it."""
    kind = type(layer)
    return (
        kind.forward in _PLAIN
        and getattr(kind, "_conv_forward", None) in _PLAIN_CONV | {None}
        and not layer._forward_pre_hooks
        and "forward" not in vars(layer)
    )


def _input_of(layer: nn.Module) -> Tensor:
    """Return an input of zeros that a layer can take: one image of the size of its kernel, with a margin."""
    first = next(layer.parameters())
    if isinstance(layer, nn.Linear):
        return first.new_zeros(1, layer.in_features)
    assert isinstance(layer, nn.modules.conv._ConvNd)
    reach = [step * (size - 1) + 1 + size for step, size in zip(layer.dilation, layer.kernel_size, strict=True)]
    return first.new_zeros(1, layer.in_channels, *reach)


def computed_weights(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the weights in use of those convolutions and linear layers that compute them, by the layer's path.

    None stands for weights that are not known. A layer that shares a parameter with such a layer is one of them.
    """
    used: dict[str, Tensor | None] = {}
    plain: dict[str, Tensor] = {}
    for path, layer in module.named_modules():
        if isinstance(layer, CONV_LINEAR):
            weight, own = used_weight(layer), layer._parameters.get("weight")
            if own is not None and weight is own:
                plain[path] = own
            else:
                used[path] = weight
    sources = {id(parameter) for path in used for parameter in _sources(module.get_submodule(path))}
    return {**used, **{path: weight for path, weight in plain.items() if id(weight) in sources}}


def _sources(layer: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of which a layer computes its weight."""
    return [parameter for name, parameter in layer.named_parameters() if name != "bias"]


def nonzero(module: nn.Module) -> int:
    """Return how many parameters are not zero; for layers that compute their weights, how many of the weights in use.

    Parameters of which weights are computed count as nonzero, less the zeros of these weights. A layer that uses zeros
    alone, because its gain is zero at first, counts as one that has not learned yet, without zeros.
    """
    sources: dict[int, nn.Parameter] = {}
    zeros = 0
    for path, weight in computed_weights(module).items():
        own = _sources(module.get_submodule(path))
        if weight is not None and weight.any() and not any(id(parameter) in sources for parameter in own):
            zeros += min(_zeros(weight), sum(parameter.numel() for parameter in own))
        sources.update((id(parameter), parameter) for parameter in own)
    zeros += sum(_zeros(parameter) for parameter in module.parameters() if id(parameter) not in sources)
    return sum(parameter.numel() for parameter in module.parameters()) - zeros


def _zeros(weight: Tensor) -> int:
    return weight.numel() - int(weight.detach().count_nonzero())


def named(module: nn.Module, paths: Iterable[str]) -> str:
    """Return layers that compute their weights in words: the first paths, each with the reason."""
    paths = list(paths)
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(f"{path} ({kind_of(module.get_submodule(path))})" for path in paths[:_SHOWN]) + more


def kind_of(layer: nn.Module) -> str:
    """Return the name of what computes the weight of a layer: a parametrisation, a hook or the layer's class."""
    if parametrize.is_parametrized(layer):
        lists = getattr(layer, "parametrizations").values()  # noqa: B009
        return ", ".join(type(part).__name__.lstrip("_") for parts in lists for part in parts)
    hooks = [hook for hook in layer._forward_pre_hooks.values() if not inspect.isfunction(hook)]
    if hooks:
        return ", ".join(type(hook).__name__ for hook in hooks)
    return type(layer).__name__


def detach_computed(module: nn.Module) -> None:
    """Cut the graphs of weights that hooks (`torch.nn.utils.weight_norm`) keep as attributes, in place.

    With them a module could not be copied. The hooks compute the weights anew when the module runs.
    """
    for part in module.modules():
        if part._forward_pre_hooks:
            for name, value in vars(part).items():
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    vars(part)[name] = value.detach()


def with_used_weights(module: nn.Module) -> None:
    """Replace parameters ``weight`` of which weights are computed by the weights in use, in place.

    The module is then only good for reading weights, since its forward would compute them once more. Layers of which
    the weights in use are not known keep their parameters.
    """
    for path, weight in computed_weights(module).items():
        layer = module.get_submodule(path)
        own = layer._parameters.get("weight")
        if own is not None and weight is not None and weight is not own:
            own.data = weight.detach().clone()
