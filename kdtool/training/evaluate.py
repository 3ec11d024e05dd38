"""The accuracy and the loss of a network on a split."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdtool.data.splits import Split
from kdtool.models.architecture import Network
from kdtool.models.conversion import behaviour
from kdtool.training.engine import Engine
from kdtool.training.sharing.shares import is_shared, spans
from kdtool.utils.classification import decisive
from kdtool.utils.memory import Recent
from kdtool.utils.processes import everyone, gathered
from kdtool.utils.seeds import derive

# Images per batch without training: the maps of more no longer fit into a CPU's caches.
VALIDATION_BATCH = 128

# Images for the validation of a loss of maps.
ENOUGH = 500


def evaluate(
    module: nn.Module,
    split: Split,
    *,
    engine: Engine | None = None,
    batch_size: int = VALIDATION_BATCH,
    select: str = "accuracy",
) -> dict[str, Any]:
    """Return ``split`` (its name), ``accuracy``, ``error`` (fractions), ``loss`` (mean cross-entropy in nats)
    and ``images`` (their number), and with ``select="balanced-accuracy"`` what `decisive` returns.

    Without an engine the module runs on its own device in float32. The processes of a run share the images.
    """
    return score(*outputs(module, split, engine=engine, batch_size=batch_size), split.name, select)


# Metrics by what they were measured of: a series of models is evaluated, not thousands.
_known: Recent[str, dict[str, Any]] = Recent(256)


def evaluate_once(network: Network, split: Split, engine: Engine, select: str = "accuracy") -> dict[str, Any]:
    """Return the metrics of `evaluate`; those of the same network on the same images are measured once in a process.

    So the steps of a chain do not measure again what an earlier one has measured. ``engine`` computes in float32.
    """
    about = (behaviour(network), split.name, split.spec.as_data(), engine.device, select)
    key = f"{derive(repr(about)):x}"
    if not everyone(key in _known):
        module = engine.place(copy.deepcopy(network.module))
        _known[key] = evaluate(module, split, engine=engine, select=select)
    return dict(_known[key])


def images_for_a_loss(held_out: int, trained: int) -> Tensor:
    """Return the indices of the validation images on which a loss of maps is measured, int64.

    Each image has thousands of numbers, so that a quarter of the number of training images tells enough, and at least
    `ENOUGH`: with ``--subset`` most of the time would be spent on the validation otherwise. They lie at equal distances
    in the split, which is in the order of the classes.
    """
    step = math.ceil(held_out / max(ENOUGH, trained // 4))
    return torch.arange(0, held_out, step)


def score(logits: Tensor, labels: Tensor, split: str, select: str = "accuracy") -> dict[str, Any]:
    """Return the metrics of `evaluate` from logits [images, classes] and labels [images], both on the CPU."""
    correct = int((logits.argmax(1) == labels).sum())
    more = decisive(logits.numpy(), labels.numpy()) if select == "balanced-accuracy" else {}
    return {
        "split": split,
        "accuracy": correct / len(labels),
        "error": 1 - correct / len(labels),
        "loss": float(F.cross_entropy(logits, labels)),
        "images": len(labels),
        **more,
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
    start, sizes = spans(len(split), batch_size)
    order = torch.arange(start, start + sum(sizes))
    channels_last = engine.channels_last if engine else False
    batches = split.batches(sizes, order=order, device=device, channels_last=channels_last)
    with engine.threads(timed=1) if engine else contextlib.nullcontext() as threads:
        for _, images, target in batches:
            with engine.autocast() if engine else contextlib.nullcontext():
                output = module(images)
            logits.append(output.float())
            labels.append(target)
            if threads is not None:
                threads.tick()
    module.train(was_training)
    # Copied at the end, since a device would stop at each copy.
    measured = torch.cat(logits).cpu(), torch.cat(labels).cpu()
    return (gathered(measured[0]), gathered(measured[1])) if is_shared(len(split)) else measured
