"""Checks of a network: that it classifies, can be trained, and is rebuilt from its plain data."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from kdtool.errors import Error
from kdtool.testing.require import failing, require

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool.models.architecture import Network

CLASSES = 10


def check_network(network: Network, name: str) -> None:
    """Check that a network classifies, can be trained, and can be rebuilt from its plain data bit for bit."""
    import torch

    from kdtool.models.architecture import Architecture, build
    from kdtool.testing.losses import check_gradients

    check_kind(network, name)
    images = torch.randn(3, *network.architecture.input, generator=torch.Generator().manual_seed(0))
    outputs = check_outputs(network.module, images, CLASSES, name)
    try:
        rebuilt = build(Architecture.from_data(network.architecture.as_data()), network.module.state_dict())
    except Error as error:
        raise AssertionError(f"{name}: the network cannot be rebuilt from its plain data: {error}") from error
    with torch.no_grad():
        same = torch.equal(rebuilt(images), outputs)
    require(same, f"{name}: the network rebuilt from its plain data gives different outputs")
    trained = copy.deepcopy(network.module).requires_grad_(True).train()
    with failing(f"{name}: the network cannot be trained"):
        trained(images).square().mean().backward()
    check_gradients(trained, name)


def check_kind(value: object, name: str) -> None:
    """Check that what a method returned is a network."""
    from kdtool.models.architecture import Architecture, Network

    require(isinstance(value, Network), f"{name}: returned {type(value).__name__}, not a kdtool.Network")
    architecture = getattr(value, "architecture", None)
    fits = isinstance(architecture, Architecture)
    require(fits, f"{name}: its network has {type(architecture).__name__} in place of an Architecture")


def check_outputs(module: nn.Module, images: Tensor, classes: int, name: str) -> Tensor:
    """Check that a network in eval mode gives finite logits [images, classes], and return them."""
    import torch

    require(not module.training, f"{name}: the network is not in eval mode")
    with failing(f"{name}: the network does not run"), torch.no_grad():
        outputs: Tensor = module(images)
    fits = isinstance(outputs, torch.Tensor) and outputs.shape == (len(images), classes)
    require(fits, f"{name}: the network must return logits [{len(images)}, {classes}]")
    require(bool(torch.isfinite(outputs).all()), f"{name}: the network's logits are not finite")
    return outputs
