"""The contract of a source of networks, such as torchvision or timm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.plugins.method import Method

if TYPE_CHECKING:
    from torch import nn


class Source(Method):
    """Build networks by name."""

    kind: ClassVar[str] = "teachers"
    library: ClassVar[str] = ""
    """The distribution that has the networks, if it is another one than the plugin's; its version is part of the key
    under which the names are cached."""

    def networks(self) -> list[str]:
        """Return the names of the networks that `build` can build."""
        raise NotImplementedError

    def defaults(self, network: str) -> dict[str, Any]:
        """Return what ``network`` was designed for.

        The keys are ``classes``, ``in_channels``, ``image_size`` (pixels), ``mean`` and ``std`` (tuples of one number
        per channel, for images in 0..1) and, if pretrained weights expect them, ``crop`` (the side of the centre square
        that is used, as a fraction of an image's shorter side) and ``interpolation`` (the filter that resizes it:
        ``bilinear``, ``bicubic``, ...).
        """
        raise NotImplementedError

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode, on the CPU, in float32.

        It maps [batch, in_channels, image_size, image_size] to logits [batch, classes].

        Raises:
            kdtool.Error: the network cannot be built with these options; the message says why.
        """
        raise NotImplementedError
