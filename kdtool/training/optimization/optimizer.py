"""The optimiser of a phase, and the schedule of its learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import lr_scheduler

from kdtool.training.options import Training
from kdtool.utils.uncompiled import with_plain_step


def make_optimizer(parameters: list[Any], training: Training) -> torch.optim.Optimizer:
    """Return the optimiser of parameters or of groups of them, see `kdtool.training.optimization.parameter_groups`.

    Those of torch are fused: on small networks their own arithmetic dominates the step. Muon (Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon) moves every matrix, and every convolution as a matrix of out x rest, by
    the orthogonal factor of its momentum, scaled to the size of AdamW's steps (Liu et al., 2025, arXiv:2502.16982);
    vectors and what is no matrix move as in AdamW with Nesterov momentum.
    """
    if training.optimizer == "muon":
        from timm.optim import Muon

        made: torch.optim.Optimizer = with_plain_step(Muon)(
            parameters, lr=training.lr, momentum=training.momentum, nesterov=True, weight_decay=training.weight_decay
        )
        return made
    if training.optimizer == "sgd":
        return with_plain_step(torch.optim.SGD)(
            parameters,
            lr=training.lr,
            momentum=training.momentum,
            nesterov=training.momentum > 0,
            weight_decay=training.weight_decay,
            fused=True,
        )
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    return with_plain_step(kind)(parameters, lr=training.lr, weight_decay=training.weight_decay, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, training: Training, steps: int) -> lr_scheduler.LRScheduler:
    """Return the schedule of the learning rates over the steps of a phase, ``steps`` in each epoch.

    A warm-up rises in equal steps; the schedule itself follows it in what is left of the phase. Milestones are
    fractions of the whole phase; one that lies within the warm-up acts when that is over. One-cycle has a rise of its
    own, which lasts as long as the warm-up. While the rate rises, one-cycle moves the momentum of SGD from 0.95 to
    0.85, and back to 0.95 while the rate falls, whatever ``training.momentum`` is (Smith, 2018, arXiv:1803.09820). In
    the other optimisers it moves beta1 of Adam's part so; the momentum with which Muon moves matrices stays
    ``training.momentum``.
    """
    total = max(steps * training.epochs, 1)
    warm = None if training.warmup is None else min(round(training.warmup * steps), total - 1)
    if training.schedule == "one-cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        rise = 0.3 if warm is None else warm / total
        if warm == 1:
            # The first step has the highest rate. torch would divide by the length of a rise from step 0 to step 0;
            # with a little less than one step it falls from the first step on.
            rise *= 1 - 1e-9
        return lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=max(total, 2), pct_start=rise)
    if not warm:
        return _main_schedule(optimizer, training, total, 0)
    first = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warm + 1), total_iters=warm)
    return lr_scheduler.SequentialLR(
        optimizer, [first, _main_schedule(optimizer, training, total, warm)], milestones=[warm]
    )


def _main_schedule(
    optimizer: torch.optim.Optimizer, training: Training, total: int, warm: int
) -> lr_scheduler.LRScheduler:
    """Return the schedule of the steps that follow ``warm`` of a warm-up, ``total`` with these."""
    if training.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - warm)
    if training.schedule == "multi-step":
        milestones = [max(round(fraction * total) - warm, 0) for fraction in training.milestones]
        return lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)
