"""Students that are trained in 8 bits, and commands that go on in float, whatever the numbers of a network are."""

from __future__ import annotations

import dataclasses

import torch

from kdtool.data.splits import Data
from kdtool.distillation.options import StudentOptions
from kdtool.errors import UsageError
from kdtool.models.architecture import Network, build
from kdtool.models.checkpoint import Checkpoint, weights_of
from kdtool.models.quantisation.fake import from_data, quantiser_of, without_quantiser
from kdtool.models.quantisation.training import begin_to_round
from kdtool.training.epochs.held import plain_images
from kdtool.training.options import Training
from kdtool.utils.progress import say


def check_training(options: StudentOptions, training: Training) -> None:
    """Check that a student that rounds can be trained in this way.

    Raises:
        UsageError: its layers would be run, or compiled, without the pass that rounds around them.
    """
    for name in ("compile", "checkpoint_activations"):
        if options.quantize != "off" and getattr(training, name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag}: a student of --quantize {options.quantize} rounds in eager passes only; leave it out"
            )


def rounding(network: Network, data: Data, options: StudentOptions) -> Network:
    """Return a copy of a network that rounds, with ranges from plain training images, as the options ask for.

    Raises:
        UsageError: a pattern of ``quantize_only`` or ``quantize_skip`` matches no layer, or no layer is left.
        Error: the network has no layer that runs in 8 bits.
    """
    return begin_to_round(network, plain_images(data.train), options.quantize_skip, options.quantize_only)


def in_float(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose network computes in float, and say so if it was trained in 8 bits."""
    if quantiser_of(checkpoint.module) is None:
        return checkpoint
    say(f"{checkpoint.path or checkpoint.architecture.spec}: was trained in 8 bits; its weights go on in float")
    return dataclasses.replace(checkpoint, network=without_quantiser(checkpoint.network))


def as_read(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with the module that its file would give: in float32, with the gradients of its source.

    It is the given one, unless its module was frozen or has numbers of another type. That module stays as it is.

    Raises:
        Error: the layers of such a module were changed.
    """
    if all(weight.requires_grad and weight.dtype == torch.float32 for weight in checkpoint.module.parameters()):
        return checkpoint
    network = Network(checkpoint.architecture, build(checkpoint.architecture, weights_of(checkpoint.module)))
    if (quantiser := quantiser_of(checkpoint.module)) is not None:
        network = from_data(network, quantiser.as_data())
    return dataclasses.replace(checkpoint, network=network)
