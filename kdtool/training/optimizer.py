"""The optimiser of a phase, and the schedule of its learning rate."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import lr_scheduler

from kdtool.training.options import Training
from kdtool.utils.uncompiled import with_plain_step


def make_optimizer(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """Return the optimiser, in its fused form: on small networks its own arithmetic dominates the step."""
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
    """Return the learning rate's schedule over ``steps`` steps of a phase."""
    steps = max(steps, 1)
    if training.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if training.schedule == "multi-step":
        milestones = [round(fraction * steps) for fraction in training.milestones]
        return lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    if training.schedule == "one-cycle":
        return lr_scheduler.OneCycleLR(optimizer, max_lr=training.lr, total_steps=max(steps, 2))
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)
