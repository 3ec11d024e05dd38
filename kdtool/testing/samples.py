"""Small random batches, as a loss sees them in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdtool.distillation.distiller import LossDistiller
from kdtool.features.classifier import classifier_weight
from kdtool.features.segments import Segment
from kdtool.models.architecture import Architecture, Network
from kdtool.training.step import Step
from kdtool.training.student import StudentModule
from kdtool.utils.seeds import forked, set_seed


@forked()
def sample_step(
    distiller: LossDistiller, *, per_class: int, epoch: int, student: str = "convnet", classes: int = 4, size: int = 8
) -> tuple[Step, nn.Module]:
    """Return a step on random images, and the module of its student.

    The student is a ``convnet`` or a ``vit``, the teacher a wider convnet. The images are ``[classes * per_class, 3,
    size, size]``. The step has the maps of the layers that the distiller watches, after its adapters.

    Raises:
        Error: the distiller cannot work with these networks.
    """
    set_seed(0)
    teacher = _convnet(classes, size, width=8)
    network = {"convnet": _convnet, "vit": _vit}[student](classes, size, width=6)
    distiller.check(network, teacher)
    pairs = distiller.watch(network, teacher)
    learner = StudentModule(network.module, pairs=pairs, adapters=distiller.adapters(pairs))
    learner.train()
    target = torch.arange(classes).repeat(per_class)
    images = torch.randn(len(target), 3, size, size)
    taps = [pair.teacher for pair in pairs]
    with torch.no_grad():
        logits, maps = Segment().run(teacher.module.eval(), images, taps)
    output, student_taps, _ = learner(images)
    step = Step(
        student=output,
        # The logits of a fresh network are nearly equal; those of a trained one are not.
        teacher=10 * logits,
        target=target,
        images=images,
        epoch=epoch,
        epochs=10,
        maps=learner.compare(student_taps, [maps[tap.name] for tap in taps]),
        owners=[pair.owner for pair in pairs],
        classifier=classifier_weight(teacher) if distiller.needs_classifier() else None,
        indices=torch.arange(len(target)),
    )
    return step, network.module


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
    """A vision transformer with two blocks, patches of 2x2 pixels and a class token."""

    def __init__(self, classes: int, size: int, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 1 + (size // 2) ** 2, width))
        blocks = (nn.TransformerEncoderLayer(width, 2, width, 0.0, batch_first=True, norm_first=True) for _ in range(2))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[batch, classes]``."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits
