"""The weights of a network's linear classifier, one row for each class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.models.architecture import Network
from kdtool.models.conversion import conversion_of
from kdtool.models.hooks import evaluating, hooked


def classifier_weight(network: Network) -> Tensor | None:
    """Return the weights [classes, features] of the linear layer whose outputs are a network's logits.

    The rows are in the order of the logits, which is that of the run's classes. It is found by running the network on
    two random images. None is returned where no linear layer puts out the logits: they are the mean of several
    classifiers, or a convolution makes them.
    """
    outputs: dict[str, Tensor] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(layer, nn.Linear) and isinstance(output, Tensor):
                outputs[path] = output

        return hook

    first = next(network.module.parameters())
    images = torch.rand(2, *network.architecture.input, generator=torch.Generator().manual_seed(0)).to(first.device)
    with hooked(network.module, note), evaluating(network.module), torch.no_grad():
        logits = network.module(images)
    conversion = conversion_of(network.module)
    for path, output in outputs.items():
        rows = list(range(output.shape[-1])) if conversion is None else conversion.order
        if len(rows) == output.shape[-1] and torch.equal(output[..., rows], logits):
            layer = network.module.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            return layer.weight.detach()[rows].clone()
    return None
