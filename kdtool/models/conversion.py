"""Networks with other conventions in one run: each sees images normalised its own way, and all classes in one order.

A run has one normalisation and one order of classes. A network that was trained with others gets hooks on its root
module, which convert what comes in and what goes out. Copies of the module keep them, so that nothing that runs the
network can forget them; its layers, their paths and its weights are unchanged.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.data.classes import positions
from kdtool.data.spec import DataSpec
from kdtool.errors import FAILURES, first_line
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint, fingerprint
from kdtool.models.prediction import classes_in, expected_by
from kdtool.utils.seeds import derive, forked


@dataclass(frozen=True)
class Convention:
    """What the outputs of a network depend on beside its weights.

    ``mean`` and ``std`` have one number per channel, for images in 0..1; ``classes`` are in the order of the logits.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, spec: DataSpec) -> Convention:
        """Return the convention of a description of data."""
        return cls(spec.mean, spec.std, spec.classes)

    def applied(self, spec: DataSpec) -> DataSpec:
        """Return a description of the same data in this convention."""
        return dataclasses.replace(spec, mean=self.mean, std=self.std, classes=self.classes)


@dataclass(frozen=True)
class Conversion:
    """How a network with the convention ``own`` runs on the images of ``run`` and answers in its order of classes."""

    own: Convention
    run: Convention

    def images(self, images: Tensor) -> Tensor:
        """Return images [batch, channels, height, width] in the normalisation of the network.

        An image x = (p - m) / s of pixels p becomes (p - m') / s' = x * s / s' + (m - m') / s'.
        """
        own, run = (
            [torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1) for numbers in (of.mean, of.std)]
            for of in (self.own, self.run)
        )
        factor, summand = run[1] / own[1], (run[0] - own[0]) / own[1]
        return images * factor.to(images.dtype).to(images.device) + summand.to(images.dtype).to(images.device)

    def logits(self, logits: Tensor) -> Tensor:
        """Return logits [batch, classes] in the order of the run's classes."""
        return logits.index_select(1, torch.tensor(self.order, device=logits.device))

    @cached_property
    def order(self) -> list[int]:
        """For each class of the run its place among the network's own classes."""
        places = positions(self.run.classes, self.own.classes, "the run", "the network")
        return list(range(len(self.own.classes))) if places is None else places

    def attach(self, module: nn.Module) -> None:
        """Convert whatever goes through ``module`` from now on."""
        module.register_forward_pre_hook(self._before)
        module.register_forward_hook(self._after)

    def _before(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if (self.own.mean, self.own.std) == (self.run.mean, self.run.std):
            return None
        return (self.images(inputs[0]), *inputs[1:])

    def _after(self, _: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        return None if self.own.classes == self.run.classes else self.logits(output)


def conversion_of(module: nn.Module) -> Conversion | None:
    """Return the conversion that was attached to a network's root module, or None."""
    owners = (getattr(hook, "__self__", None) for hook in module._forward_pre_hooks.values())
    return next((owner for owner in owners if isinstance(owner, Conversion)), None)


def converted(network: Network, conversion: Conversion | None) -> Network:
    """Return a network whose module converts in this way; a copy, unless it does so already.

    With None it is the network as its checkpoint holds it.
    """
    if conversion is not None and conversion.own == conversion.run:
        conversion = None
    if conversion_of(network.module) == conversion:
        return network
    module = copy.deepcopy(network.module)
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for number in [key for key, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), Conversion)]:
            del hooks[number]
    if conversion is not None:
        conversion.attach(module)
    return Network(network.architecture, module)


def plain(network: Network) -> Network:
    """Return a network without its conversion, for edits of its structure and for files."""
    return converted(network, None)


def described(network: Network, spec: DataSpec) -> DataSpec:
    """Return a description of the data of a run as the checkpoint of a network has to record it."""
    conversion = conversion_of(network.module)
    return spec if conversion is None else conversion.own.applied(spec)


def convention_of(checkpoint: Checkpoint, spec: DataSpec) -> Convention:
    """Return the convention of a checkpoint's network; what it does not record is taken to be that of ``spec``."""
    classes = classes_in(checkpoint, spec.classes)
    return Convention.of(checkpoint.data or dataclasses.replace(spec, **expected_by(checkpoint), classes=classes))


def seen_in(checkpoint: Checkpoint, spec: DataSpec) -> Checkpoint:
    """Return a checkpoint whose network runs on data of ``spec``, whatever its own convention is.

    Raises:
        Error: its classes are not those of the data.
    """
    own, run = convention_of(checkpoint, spec), Convention.of(spec)
    positions(own.classes, run.classes, str(checkpoint.path or checkpoint.architecture.spec), spec.name)
    network = converted(checkpoint.network, Conversion(own, run))
    return checkpoint if network is checkpoint.network else dataclasses.replace(checkpoint, network=network)


def digest(module: nn.Module, weights: Mapping[str, Tensor] | None = None) -> str:
    """Return hexadecimal digits that differ between modules that differ in weights or in a conversion.

    ``weights`` are those that count, by default all. Without a conversion it is their fingerprint.
    """
    text = fingerprint(module.state_dict() if weights is None else weights)
    conversions = [conversion for part in module.modules() if (conversion := conversion_of(part)) is not None]
    return text + (f"-{derive(repr(conversions)):x}" if conversions else "")


def behaviour(network: Network) -> str:
    """Return hexadecimal digits that differ between networks that compute differently.

    The code of a network may change while a process runs: a cell of a notebook is mended, a module is loaded again. So
    its outputs for two images count beside its weights, its layers and its architecture: one image of noise, and one
    with numbers so large that limits of activations tell.
    """
    module = network.module
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    images = torch.randn(2, *network.architecture.input, generator=torch.Generator().manual_seed(0))
    images[1] *= 30
    # A layout of the weights in memory, or a device, would change the last bits.
    runs = copy.deepcopy(module).to("cpu").to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    try:
        with forked(), torch.no_grad():
            answer = fingerprint({"outputs": runs(images.to(next(runs.parameters(), images).dtype))})
    except FAILURES as error:  # whoever runs it reports that
        answer = first_line(error)
    about = (digest(module, tensors), repr(module), network.architecture.as_data(), answer)
    return hashlib.sha256(repr(about).encode()).hexdigest()
