"""The networks of the papers behind the built-in methods, which no library ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Source, UsageError, hookimpl, option
from kdtool_teachers.names import unknown

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
# What each network's paper trains it on, and the smallest side of an image that leaves a pixel for its last layer.
NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "conv4-fc2": (CIFAR10, 4),
    "densenet-bc-100-12": (CIFAR10, 4),
    "lenet-300-100": (MNIST, 1),
    "lenet-5": (MNIST, 1),
    "resnet10-concat-head": (IMAGENETTE, 1),
    "resnet14-concat-head": (IMAGENETTE, 1),
    "resnet18-concat-head": (IMAGENETTE, 1),
    "resnet20-concat-head": (IMAGENETTE, 1),
    "resnet26-concat-head": (IMAGENETTE, 1),
    "resnet34-concat-head": (IMAGENETTE, 1),
}
WIDTH = 42


class OwnModels(Source):
    """Build the networks of the papers that kdtool repeats."""

    name: ClassVar[str] = "kdtool"

    width: int | None = option(
        None,
        minimum=1,
        maximum=4096,
        help=f"maps of conv4-fc2's first layer: 19 gives 0.2 M parameters, {WIDTH} (the default) 1 M, 67 2.6 M",
    )

    def networks(self) -> list[str]:
        """Return the names that `build` knows."""
        return list(NETWORKS)

    def defaults(self, network: str) -> dict[str, Any]:
        """Return the classes, channels, size and normalisation of the paper's data."""
        return dict(self._about(network)[0])

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode, freshly initialised.

        Raises:
            UsageError: the name is unknown, or an option does not fit this network.
        """
        _, smallest = self._about(network)
        if pretrained:
            raise UsageError(
                f"kdtool:{network}: has no pretrained weights; give your own with --weights, or --data to train it"
            )
        if self.width is not None and network != "conv4-fc2":
            raise UsageError(f"kdtool:{network}: has no --width; it is an option of conv4-fc2")
        if image_size < smallest:
            raise UsageError(
                f"kdtool:{network}: {image_size}x{image_size} pixels are too few; give --image-size {smallest} or more"
            )
        return self._make(network, classes, in_channels, image_size).eval()

    def _about(self, network: str) -> tuple[dict[str, Any], int]:
        if network not in NETWORKS:
            raise unknown(self.name, network, NETWORKS)
        return NETWORKS[network]

    def _make(self, network: str, classes: int, in_channels: int, image_size: int) -> nn.Module:
        net: nn.Module
        if network == "lenet-300-100":
            from kdtool_teachers.lenet import lenet_300_100

            net = lenet_300_100(classes, in_channels, image_size)
        elif network == "lenet-5":
            from kdtool_teachers.lenet import lenet_5

            net = lenet_5(classes, in_channels, image_size)
        elif network == "conv4-fc2":
            from kdtool_teachers.conv4_fc2 import conv4_fc2

            net = conv4_fc2(classes, in_channels, image_size, self.width or WIDTH)
        elif network == "densenet-bc-100-12":
            from kdtool_teachers.densenet_bc import densenet_bc

            net = densenet_bc(classes, in_channels)
        else:
            from kdtool_teachers.resnet_concat import BLOCKS, resnet_concat_head

            net = resnet_concat_head(classes, in_channels, BLOCKS[network])
        return net


@hookimpl
def teachers() -> list[type[Source]]:
    """Bring the source."""
    return [OwnModels]
