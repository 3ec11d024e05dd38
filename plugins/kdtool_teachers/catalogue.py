"""The networks of own_models: the data of their papers, the inputs that they accept, and their builders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

MNIST = {"classes": 10, "in_channels": 1, "image_size": 28, "mean": (0.1307,), "std": (0.3081,)}
CIFAR10 = {
    "classes": 10,
    "in_channels": 3,
    "image_size": 32,
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
}
IMAGENETTE = {
    "classes": 10,
    "in_channels": 3,
    "image_size": 224,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


@dataclass(frozen=True)
class Entry:
    """A network that can be built.

    ``paper_data`` describes the data on which its paper trains it. ``min_image_size`` is the smallest side of an image
    in pixels that leaves one position for its last layer. ``build`` takes classes, in_channels and image_size, and as
    keywords those ``options`` of the source that apply to it. ``grows_with_image`` says that larger images give it
    more parameters.
    """

    paper_data: dict[str, Any]
    min_image_size: int
    build: Callable[..., nn.Module]
    options: tuple[str, ...] = ()
    grows_with_image: bool = False


def _lenet_300_100(classes: int, in_channels: int, image_size: int) -> nn.Module:
    from kdtool_teachers.lenet import lenet_300_100

    return lenet_300_100(classes, in_channels, image_size)


def _lenet_5(classes: int, in_channels: int, image_size: int) -> nn.Module:
    from kdtool_teachers.lenet import lenet_5

    return lenet_5(classes, in_channels, image_size)


def _conv4_fc2(classes: int, in_channels: int, image_size: int, width: int = 42) -> nn.Module:
    from kdtool_teachers.conv4_fc2 import conv4_fc2

    return conv4_fc2(classes, in_channels, image_size, width)


def _densenet_bc(classes: int, in_channels: int, image_size: int) -> nn.Module:
    from kdtool_teachers.densenet_bc import densenet_bc

    net: nn.Module = densenet_bc(classes, in_channels)
    return net


def _resnet_concat(classes: int, in_channels: int, image_size: int, *, blocks: tuple[int, int, int, int]) -> nn.Module:
    from kdtool_teachers.resnet_concat import resnet_concat_head

    net: nn.Module = resnet_concat_head(classes, in_channels, blocks)
    return net


def _resnet(classes: int, in_channels: int, image_size: int, **settings: Any) -> nn.Module:
    from kdtool_teachers.resnet_cifar import resnet_cifar

    return resnet_cifar(classes, in_channels, **settings)


def _wide_resnet(classes: int, in_channels: int, image_size: int, **settings: Any) -> nn.Module:
    from kdtool_teachers.wide_resnet import wide_resnet

    return wide_resnet(classes, in_channels, **settings)


def _resnet9(classes: int, in_channels: int, image_size: int, width: int = 64) -> nn.Module:
    from kdtool_teachers.resnet9 import resnet9

    return resnet9(classes, in_channels, width)


def _airbench94(classes: int, in_channels: int, image_size: int, width: int = 64) -> nn.Module:
    from kdtool_teachers.airbench import airbench94

    return airbench94(classes, in_channels, width)


def _vgg(classes: int, in_channels: int, image_size: int, **settings: Any) -> nn.Module:
    from kdtool_teachers.vgg_cifar import vgg_cifar

    return vgg_cifar(classes, in_channels, **settings)


_RESNET_X4 = partial(_resnet, widths=(32, 64, 128, 256), projects=True)

NETWORKS: dict[str, Entry] = {
    "conv4-fc2": Entry(CIFAR10, 4, _conv4_fc2, options=("width",), grows_with_image=True),
    "densenet-bc-100-12": Entry(CIFAR10, 4, _densenet_bc),
    "lenet-300-100": Entry(MNIST, 1, _lenet_300_100, grows_with_image=True),
    "lenet-5": Entry(MNIST, 1, _lenet_5),
    "airbench94": Entry(CIFAR10, 9, _airbench94, options=("width",)),
    "airbench94-16": Entry(CIFAR10, 9, partial(_airbench94, width=16)),
    "resnet9": Entry(CIFAR10, 8, _resnet9, options=("width",)),
    "resnet8x4": Entry(CIFAR10, 1, partial(_RESNET_X4, depth=8)),
    "resnet32x4": Entry(CIFAR10, 1, partial(_RESNET_X4, depth=32)),
    "resnet20": Entry(CIFAR10, 1, partial(_resnet, depth=20)),
    "resnet20b": Entry(CIFAR10, 1, partial(_resnet, depth=20, projects=True)),
    "resnet32": Entry(CIFAR10, 1, partial(_resnet, depth=32)),
    "resnet44": Entry(CIFAR10, 1, partial(_resnet, depth=44)),
    "resnet56": Entry(CIFAR10, 1, partial(_resnet, depth=56)),
    "resnet56b": Entry(CIFAR10, 1, partial(_resnet, depth=56, projects=True)),
    "resnet110": Entry(CIFAR10, 1, partial(_resnet, depth=110)),
    # The numbers in the names count the stem, two convolutions per block and one head.
    "resnet10-concat-head": Entry(IMAGENETTE, 1, partial(_resnet_concat, blocks=(1, 1, 1, 1))),
    "resnet14-concat-head": Entry(IMAGENETTE, 1, partial(_resnet_concat, blocks=(1, 1, 2, 2))),
    "resnet18-concat-head": Entry(IMAGENETTE, 1, partial(_resnet_concat, blocks=(2, 2, 2, 2))),
    "resnet20-concat-head": Entry(IMAGENETTE, 1, partial(_resnet_concat, blocks=(2, 2, 3, 2))),
    "resnet26-concat-head": Entry(IMAGENETTE, 1, partial(_resnet_concat, blocks=(3, 3, 3, 3))),
    "resnet34-concat-head": Entry(IMAGENETTE, 1, partial(_resnet_concat, blocks=(3, 4, 6, 3))),
    "vgg8": Entry(CIFAR10, 8, partial(_vgg, convolutions=1)),
    "vgg13": Entry(CIFAR10, 8, partial(_vgg, convolutions=2)),
    "wrn-16-1": Entry(CIFAR10, 1, partial(_wide_resnet, depth=16, factor=1)),
    "wrn-16-2": Entry(CIFAR10, 1, partial(_wide_resnet, depth=16, factor=2)),
    "wrn-40-1": Entry(CIFAR10, 1, partial(_wide_resnet, depth=40, factor=1)),
    "wrn-40-2": Entry(CIFAR10, 1, partial(_wide_resnet, depth=40, factor=2)),
}
