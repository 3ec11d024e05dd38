"""The network with which a candidate begins a training: one in 8 bits may learn to round in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdtool.commands.quantise import check_training, rounding
from kdtool.compression.candidates import FLOAT, Candidate
from kdtool.distillation.distiller import Distiller
from kdtool.distillation.options import StudentOptions
from kdtool.errors import Error, UsageError
from kdtool.models.architecture import Network
from kdtool.training.run import Run
from kdtool.utils.progress import say

LOST = 0.005
"""A network in 8 bits that loses more accuracy than this learns to round in its next long training."""


def learner_of(candidate: Candidate, last: Mapping[str, Any] | None, distiller: Distiller, run: Run) -> Network:
    """Return the network of a candidate, which rounds in its training if its file lost much.

    ``last`` is the row of its last training, if it had one.
    """
    network = candidate.network
    assert network is not None
    if candidate.precision == FLOAT or last is None or last.get("float_accuracy") is None:
        return network
    if not last.get("rounded") and last["float_accuracy"] - last["accuracy"] <= LOST:
        return network
    options = StudentOptions(quantize="int8")
    try:
        type(distiller).check_precision(options.quantize)
        check_training(options, run.training)
        return rounding(network, run.data, options)
    except (Error, UsageError) as error:
        say(f"compress: {candidate.name} does not learn to round: {error}")
        return network
