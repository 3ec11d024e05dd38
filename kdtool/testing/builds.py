"""The check of the networks that a source builds."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from kdtool.errors import Error
from kdtool.models.edits import fit_shapes
from kdtool.models.no_init import base_for
from kdtool.models.source import Source, built
from kdtool.models.weights import load_exactly
from kdtool.plugins.entry_points import reason_of
from kdtool.testing.networks import check_outputs
from kdtool.testing.require import failing, require

_CLASSES = 7


def check_builds(source: Source, network: str, channels: int, size: int) -> None:
    """Check the network that a source builds, and that it knows no other name."""
    name = f"{source.name}:{network}"
    make = partial(source.build, classes=_CLASSES, in_channels=channels, image_size=size)
    with failing(f"{name}: build() fails"):
        module = make(network)
    require(isinstance(module, nn.Module), f"{name}: build() returned {type(module).__name__}, not a torch.nn.Module")
    require(not any(part.training for part in module.modules()), f"{name}: is not in eval mode")
    require(all(tensor.dtype == torch.float32 for tensor in module.parameters()), f"{name}: is not in float32")
    require(all(tensor.device.type == "cpu" for tensor in module.state_dict().values()), f"{name}: is not on the CPU")
    images = torch.randn(2, channels, size, size)
    outputs = check_outputs(module, images, _CLASSES, name)
    again = _rebuilt(source, network, module, channels, size)
    with torch.no_grad():
        same = torch.equal(again(images), outputs)
    require(same, f"{name}: a second network with the same weights gives other outputs; keep what it draws in buffers")
    unknown = "build() of an unknown name must raise kdtool.Error"
    try:
        make("no-network-of-this-name")
    except Error:
        return
    except Exception as error:
        raise AssertionError(f"{source.name}: {unknown}, not {reason_of(error)}") from error
    raise AssertionError(f"{source.name}: {unknown}")


def _rebuilt(source: Source, network: str, module: nn.Module, channels: int, size: int) -> nn.Module:
    """Return the network as a checkpoint of it is read: built in the same way, with the weights of ``module``."""
    name, weights = f"{source.name}:{network}", module.state_dict()
    way_out = "; build() must give the same structure each time"
    shape = {"classes": _CLASSES, "in_channels": channels, "image_size": size}
    with failing(f"{name}: its checkpoints could not be read", way_out):
        source.prepare(network)
        again = base_for(partial(built, source, network, **shape), weights, name)
        require(not fit_shapes(again, weights), f"{name}: its layers have other sizes when it is built again{way_out}")
        load_exactly(again, weights)
    return again.eval()
