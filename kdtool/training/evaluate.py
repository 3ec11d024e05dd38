"""The accuracy and the loss of a network on a split."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtool.data.splits import Split
from kdtool.training.engine import Engine

# Images per batch without training: the maps of more no longer fit into a CPU's caches.
VALIDATION_BATCH = 128


def evaluate(
    module: nn.Module, split: Split, *, engine: Engine | None = None, batch_size: int = VALIDATION_BATCH
) -> dict[str, Any]:
    """Return ``split`` (its name), ``accuracy``, ``error`` (fractions), ``loss`` (mean cross-entropy in nats)
    and ``images`` (their number).

    Without an engine the module runs on its own device in float32.
    """
    return score(*outputs(module, split, engine=engine, batch_size=batch_size), split.name)


def score(logits: Tensor, labels: Tensor, split: str) -> dict[str, Any]:
    """Return the metrics of `evaluate` from logits [images, classes] and labels [images]."""
    correct = int((logits.argmax(1) == labels).sum())
    return {
        "split": split,
        "accuracy": correct / len(labels),
        "error": 1 - correct / len(labels),
        "loss": float(F.cross_entropy(logits, labels)),
        "images": len(labels),
    }


@torch.no_grad()
def outputs(
    module: nn.Module, split: Split, *, engine: Engine | None = None, batch_size: int = VALIDATION_BATCH
) -> tuple[Tensor, Tensor]:
    """Return the logits [images, classes] in float32 and the labels [images] of a split, on the CPU."""
    parameter = next(module.parameters(), torch.empty(0))
    device = engine.device if engine else parameter.device
    was_training = module.training
    module.eval()
    logits, labels = [], []
    batches = split.batches(batch_size, device=device, channels_last=engine.channels_last if engine else False)
    with engine.threads(timed=1) if engine else contextlib.nullcontext() as threads:
        for _, images, target in batches:
            with engine.autocast() if engine else contextlib.nullcontext():
                output = module(images)
            logits.append(output.float().cpu())
            labels.append(target.cpu())
            if threads is not None:
                threads.tick()
    module.train(was_training)
    return torch.cat(logits), torch.cat(labels)
