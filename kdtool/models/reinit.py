"""Fresh weights for a network whose layers were resized."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from kdtool.models.architecture import Network, skeleton
from kdtool.models.conversion import plain
from kdtool.models.layers import CONV_LINEAR
from kdtool.models.modules import check_transparent


def reinitialize(network: Network) -> Network:
    """Return a network of the same structure with fresh weights, drawn under the current random state."""
    check_transparent(network.module, "it has no weights that could be trained")
    module = copy.deepcopy(plain(network).module)
    fill(module, skeleton(network.architecture))
    return Network(network.architecture, module)


def fill(module: nn.Module, base: nn.Module) -> None:
    """Copy into every tensor of ``module`` evenly spaced entries of the same tensor of ``base``, in place.

    The weights of convolutions and linear layers are scaled by sqrt(old fan-in / new fan-in): initialisations draw
    them with a variance of 1 / fan-in, which is larger for a narrower layer. A convolution of ``base`` that begins as
    the identity does so in ``module`` too: entries of an identity would mostly be zero.
    """
    new, old = module.state_dict(), base.state_dict()
    with torch.no_grad():
        for path, tensor in new.items():
            tensor.copy_(part_of(old[path], tuple(tensor.shape)))
        scaled: set[int] = set()
        for path, layer in module.named_modules():
            if isinstance(layer, nn.RNNBase):
                # The weights and biases of recurrent layers are drawn with a variance of 1 / width.
                old_width = old[f"{path}.weight_hh_l0"].shape[1]
                for parameter in layer.parameters(recurse=False):
                    parameter.mul_(math.sqrt(old_width / layer.hidden_size))
            # A weight that is computed from other parameters (torch.nn.utils.parametrize) is scaled by these.
            if isinstance(layer, CONV_LINEAR) and f"{path}.weight" in new:
                weight, whole = new[f"{path}.weight"], old[f"{path}.weight"]
                if weight.data_ptr() not in scaled:
                    scaled.add(weight.data_ptr())
                    scale = math.sqrt(fan_in(layer, whole) / fan_in(layer, weight))
                    if weight.shape != whole.shape and _is_identity(layer, whole):
                        _begin_as_identity(weight, whole, scale)
                    else:
                        weight.mul_(scale)


def _is_identity(layer: nn.Module, weight: Tensor) -> bool:
    """Return whether the first outputs of a convolution are its inputs (`torch.nn.init.dirac_`)."""
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) or layer.groups > 1:
        return False
    first = weight[: weight.shape[1]]
    return torch.equal(first, nn.init.dirac_(torch.empty_like(first)))


def _begin_as_identity(weight: Tensor, whole: Tensor, scale: float) -> None:
    """Let the first outputs of ``weight``, [outputs, inputs, ...], be its inputs.

    The others are those of ``whole`` times ``scale``, or are drawn where it has too few.
    """
    inputs, drawn = weight.shape[1], whole[whole.shape[1] :]
    nn.init.dirac_(weight[:inputs])
    others = weight[inputs:]
    if len(others) > len(drawn):
        nn.init.kaiming_uniform_(others, a=math.sqrt(5))  # as torch.nn.Conv2d
    elif len(others):
        others.copy_(part_of(drawn, tuple(others.shape)) * scale)


def part_of(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the entries of ``tensor`` at evenly spaced indices of every dimension, a tensor of ``shape``."""
    for dim, (old, new) in enumerate(zip(tensor.shape, shape, strict=True)):
        if new != old:
            tensor = tensor.index_select(dim, torch.arange(new) * old // new)
    return tensor


def fan_in(layer: nn.Module, weight: Tensor) -> int:
    """Return the number of inputs that each output of a convolution or linear layer sums over."""
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return max(1, weight.shape[0] // layer.groups * weight[0, 0].numel())
    return weight[0].numel()
