"""Students that are trained in 8 bits, and commands that go on with one in float."""

from __future__ import annotations

import dataclasses

from kdtool.data.splits import Data
from kdtool.distillation.options import StudentOptions
from kdtool.errors import UsageError
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import Checkpoint
from kdtool.models.quantisation.fake import quantiser_of, without_quantiser
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
        UsageError: a pattern of ``quantize_skip`` matches no layer.
        Error: the network has no layer that runs in 8 bits.
    """
    return begin_to_round(network, plain_images(data.train), options.quantize_skip)


def in_float(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose network computes in float, and say so if it was trained in 8 bits."""
    if quantiser_of(checkpoint.module) is None:
        return checkpoint
    say(f"{checkpoint.path or checkpoint.architecture.spec}: was trained in 8 bits; its weights go on in float")
    return dataclasses.replace(checkpoint, network=without_quantiser(checkpoint.network))
