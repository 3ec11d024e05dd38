"""The contract of a source of networks, such as torchvision or timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.plugins.method import Method
from kdtool.plugins.method_code import not_overridden, returned

if TYPE_CHECKING:
    from torch import nn


class Source(Method):
    """Build networks by name."""

    kind: ClassVar[str] = "teachers"
    library: ClassVar[str] = ""
    """The distribution that has the networks, if it is another one than the plugin's; its version is part of the key
    under which the names are cached."""

    brings_weights: ClassVar[bool] = False
    """Whether a network's name is that of its weights too, so that ``kdtool teacher`` takes them without an option."""

    @classmethod
    def collected(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the source for those that a user wrote, also behind a name: ``NAME,width=32``."""
        return dict(options)

    def networks(self) -> list[str]:
        """Return the names of the networks that `build` can build."""
        raise not_overridden(self, "networks")

    def defaults(self, network: str) -> dict[str, Any]:
        """Return what ``network`` was designed for.

        The keys are ``classes``, ``in_channels``, ``image_size`` (pixels), ``mean`` and ``std`` (tuples of one number
        per channel, for images in 0..1) and, if pretrained weights expect them, ``crop`` (the side of the centre square
        that is used, as a fraction of an image's shorter side) and ``interpolation`` (the filter that resizes it:
        ``bilinear``, ``bicubic``, ...). A key is left out if nothing is known.
        """
        raise not_overridden(self, "defaults")

    def pinned(self, network: str) -> tuple[Source, str]:
        """Return the source and the name under which a checkpoint can rebuild a network at any place.

        Override it if `build` reads what may be missing there, such as files on a server.
        """
        return self, network

    def class_names(self, network: str) -> tuple[str, ...] | None:
        """Return the names of the classes of a network's weights in the order of its outputs, None if unknown."""
        return None

    @classmethod
    def check_weights(cls, network: str) -> None:
        """Raise an error if it is certain, without the import of a large library, that weights cannot be had.

        It is called before anything else, if a user asks for the weights of the source. Override it if `build`
        downloads them: a missing connection is then seen at once.

        Raises:
            kdtool.Error: the weights are neither on this machine nor can be downloaded.
        """

    def prepare(self, network: str) -> None:
        """Import what `build` needs, before it is called in a mode of torch in which tensors have no memory.

        Override it if that import makes tensors.
        """

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode, on the CPU, in float32.

        It maps [batch, in_channels, image_size, image_size] to logits [batch, classes].

        Raises:
            kdtool.Error: the network cannot be built with these options; the message says why.
        """
        raise not_overridden(self, "build")


def built(source: Source, network: str, **options: Any) -> nn.Module:
    """Return the network that a source builds.

    Raises:
        Error: the source returned something else.
    """
    from torch import nn

    return returned(source, source.build(network, **options), nn.Module, "a torch.nn.Module")
