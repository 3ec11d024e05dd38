"""A small random batch as a loss sees it, for the checks of `kdtool.testing`."""

from __future__ import annotations

import torch
from torch import nn

from kdtool.architecture import Architecture, Network
from kdtool.methods import Distiller
from kdtool.pupil import Pupil
from kdtool.structure.segment import Segment
from kdtool.training import Step


def sample_step(
    distiller: Distiller, *, per_class: int, epoch: int, classes: int = 4, size: int = 8
) -> tuple[Step, nn.Module]:
    """Return a step in which a convnet taught by a wider one is given random images, and that student.

    The layers that the distiller watches are those of the two networks, with its adapters between them.
    """
    torch.manual_seed(0)
    teacher, student = _convnet(classes, size, width=8), _convnet(classes, size, width=4)
    pairs = distiller.watch(student, teacher)
    pupil = Pupil(student.module, pairs=pairs, adapters=[distiller.adapter(pair) for pair in pairs])
    pupil.train()
    target = torch.arange(classes).repeat(per_class)
    images = torch.randn(len(target), 3, size, size)
    taps = [pair.teacher for pair in pairs]
    with torch.no_grad():
        logits, maps = Segment().run(teacher.module.eval(), images, taps)
    output, ours = pupil(images)
    step = Step(
        student=output,
        # Scaled, as the logits of a trained network are: fresh ones are nearly equal.
        teacher=10 * logits,
        target=target,
        images=images,
        epoch=epoch,
        epochs=10,
        maps=pupil.compare(ours, [maps[tap.path] for tap in taps]),
    )
    return step, student.module


def _convnet(classes: int, size: int, width: int) -> Network:
    features = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    module = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
    shape = {"classes": classes, "in_channels": 3, "image_size": size}
    return Network(Architecture("sample", f"convnet-{width}", shape), module)
