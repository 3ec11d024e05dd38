"""The contract of a source of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool.plugins.method import Method

if TYPE_CHECKING:
    from torch import nn


class Source(Method):
    """Build networks by name."""

    kind: ClassVar[str] = "teachers"

    def networks(self) -> list[str]:
        """Return the names that `build` knows."""
        raise NotImplementedError

    def defaults(self, network: str) -> dict[str, Any]:
        """Return what ``network`` was made for: ``classes``, ``in_channels``, ``image_size`` (pixels),
        ``mean`` and ``std`` (tuples, one number a channel, for images in 0..1)."""
        raise NotImplementedError

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode, on the CPU, in float32; it maps [batch, in_channels,
        image_size, image_size] to [batch, classes] logits.

        Raises:
            kdtool.Error: the network cannot be had in that form; the message says why.
        """
        raise NotImplementedError
