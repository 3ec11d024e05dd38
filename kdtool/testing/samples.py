"""A small random batch as a loss sees it, for the checks of `kdtool.testing`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdtool.distillation.distiller import LossDistiller
from kdtool.features.segments import Segment
from kdtool.models.architecture import Architecture, Network
from kdtool.training.step import Step
from kdtool.training.student import StudentModule


def sample_step(
    distiller: LossDistiller, *, per_class: int, epoch: int, student: str = "convnet", classes: int = 4, size: int = 8
) -> tuple[Step, nn.Module]:
    """Return a step in which a ``convnet`` or a ``vit``, taught by a wider convnet, is given random images; and it.

    The layers that the distiller watches are those of the two networks, with its adapters between them.
    """
    torch.manual_seed(0)
    teacher = _convnet(classes, size, width=8)
    learner = {"convnet": _convnet, "vit": _vit}[student](classes, size, width=6)
    distiller.check(learner, teacher)
    pairs = distiller.watch(learner, teacher)
    pupil = StudentModule(learner.module, pairs=pairs, adapters=distiller.adapters(pairs))
    pupil.train()
    target = torch.arange(classes).repeat(per_class)
    images = torch.randn(len(target), 3, size, size)
    taps = [pair.teacher for pair in pairs]
    with torch.no_grad():
        logits, maps = Segment().run(teacher.module.eval(), images, taps)
    output, ours, _ = pupil(images)
    step = Step(
        student=output,
        # Scaled, as the logits of a trained network are: fresh ones are nearly equal.
        teacher=10 * logits,
        target=target,
        images=images,
        epoch=epoch,
        epochs=10,
        maps=pupil.compare(ours, [maps[tap.path] for tap in taps]),
        owners=[pair.owner for pair in pairs],
    )
    return step, learner.module


def _convnet(classes: int, size: int, width: int) -> Network:
    module = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )
    return _network("convnet", module, classes, size)


def _vit(classes: int, size: int, width: int) -> Network:
    return _network("vit", _ViT(classes, size, width), classes, size)


def _network(name: str, module: nn.Module, classes: int, size: int) -> Network:
    shape = {"classes": classes, "in_channels": 3, "image_size": size}
    return Network(Architecture("sample", name, shape), module)


class _ViT(nn.Module):
    """A vision transformer of two blocks, with patches of 2x2 pixels and a class token."""

    def __init__(self, classes: int, size: int, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 1 + (size // 2) ** 2, width))
        block = (nn.TransformerEncoderLayer(width, 2, width, 0.0, batch_first=True, norm_first=True) for _ in range(2))
        self.blocks = nn.Sequential(*block)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [batch, classes]."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits
