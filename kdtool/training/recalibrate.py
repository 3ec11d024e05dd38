"""Recompute the statistics of batch-norms, for a network whose weights changed faster than they could follow."""

from __future__ import annotations

import copy
import itertools

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from kdtool.models.architecture import Network
from kdtool.models.memory_format import as_saved
from kdtool.training.engine import engine_for
from kdtool.training.run import Run

MOST_BATCHES = 100


def recalibrate_batchnorm(run: Run, network: Network) -> Network:
    """Return a copy whose batch-norms have the statistics of the run's train split, without augmentation.

    The statistics are means over at most 100 batches, in an order that depends on the seed. Nothing else changes.
    """
    training = run.training
    engine = engine_for(training, training.batch_size, network)
    module = engine.place(copy.deepcopy(network.module)).eval()
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    order = torch.randperm(len(run.data.train), generator=torch.Generator().manual_seed(training.seed))
    whole = len(order) // training.batch_size * training.batch_size or len(order)
    batches = run.data.train.batches(
        training.batch_size, order=order[:whole], device=engine.device, channels_last=engine.channels_last
    )
    if norms:
        with torch.no_grad(), engine.threads(timed=1) as threads, engine.autocast():
            for _, images, _ in itertools.islice(batches, MOST_BATCHES):
                module(images)
                threads.tick()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return Network(network.architecture, as_saved(module).eval())
