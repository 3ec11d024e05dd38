"""Adapt torchvision's networks and their pretrained weights to other channels, sizes and classes."""

from __future__ import annotations

import http.client
import math
import re
from collections.abc import MutableMapping

from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from kdtool import Error

# DenseNet's files are from before torch refused dots in the names of modules.
_DENSE_LAYER = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def adapt_input(module: nn.Module, in_channels: int) -> None:
    """Change the number of input channels of a network for colour images, in place.

    The weights of the new first convolution are drawn from a normal distribution with 3 / in_channels times the
    variance of the old ones, so that the variance of its output stays the same.
    """
    if in_channels == 3:
        return
    _, conv = _first_convolution(module)
    weight = conv.weight.new_empty(conv.out_channels, in_channels, *conv.kernel_size)
    nn.init.normal_(weight, std=float(conv.weight.detach().std()) * math.sqrt(3 / in_channels))
    conv.in_channels, conv.weight = in_channels, nn.Parameter(weight)


def load_pretrained(module: nn.Module, network: str) -> None:
    """Load torchvision's default weights into a new network of that name, in place.

    Weights of the first convolution are summed for one channel and repeated for other numbers of channels, position
    embeddings are interpolated, auxiliary heads are left out, and a classifier of another size keeps its random
    initialisation.

    Raises:
        Error: the weights cannot be downloaded, or are not those of this network.
    """
    weights = models.get_model_weights(network).DEFAULT
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Error(
            f"torchvision:{network}: the pretrained weights cannot be downloaded ({reason}); download "
            f"{weights.url} on another machine and give the file with --weights"
        ) from error
    fresh = _fit(state, module)
    result = module.load_state_dict(state, strict=False)
    if result.unexpected_keys or set(result.missing_keys) != fresh:
        raise Error(
            f"torchvision:{network}: {weights} do not fit the network of this torchvision; give others with --weights"
        )


def _fit(state: MutableMapping[str, Tensor], module: nn.Module) -> set[str]:
    """Adapt the weights ``state`` to ``module``, in place; return the names that keep their random initialisation."""
    for name in list(state):
        if match := _DENSE_LAYER.match(name):
            state["".join(match.groups())] = state.pop(name)
        elif getattr(module, name.split(".")[0], module) is None:
            del state[name]
    name, conv = _first_convolution(module)
    if f"{name}.weight" in state:
        state[f"{name}.weight"] = adapt_channels(state[f"{name}.weight"], conv.in_channels)
    if isinstance(module, VisionTransformer):
        interpolate_embeddings(module.image_size, module.patch_size, state)  # type: ignore[arg-type]
    own = module.state_dict()
    fresh = {
        name
        for name, tensor in state.items()
        if name in own and tensor.shape[:1] != own[name].shape[:1] and tensor.shape[1:] == own[name].shape[1:]
    }
    for name in fresh:
        del state[name]
    return fresh


def adapt_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Return a convolution's weights [out, 3, h, w] as [out, in_channels, h, w].

    An image with the same values in every channel gives the same response as before.
    """
    if weight.shape[1] == in_channels:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = math.ceil(in_channels / weight.shape[1])
    return weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (weight.shape[1] / in_channels)


def _first_convolution(module: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the path and the module of the first registered convolution, which is the one that reads the image."""
    return next((name, part) for name, part in module.named_modules() if isinstance(part, nn.Conv2d))
