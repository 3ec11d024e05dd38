"""The networks of the papers behind the built-in methods, which no library ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdtool import Source, UsageError, option
from kdtool_teachers.catalogue import NETWORKS, Known
from kdtool_teachers.names import unknown

if TYPE_CHECKING:
    from torch import nn

# 1 GiB of weights: the networks here have at most 22 M in their papers.
MOST_PARAMETERS = 2**28


class OwnModels(Source):
    """Build the networks of the papers that kdtool repeats."""

    width: int | None = option(
        None,
        minimum=1,
        maximum=4096,
        help="maps of conv4-fc2's first layer: 19 gives 0.2 M parameters, 42 (the default) 1 M, 67 2.6 M",
    )

    def networks(self) -> list[str]:
        """Return the names that `build` knows."""
        return list(NETWORKS)

    def defaults(self, network: str) -> dict[str, Any]:
        """Return the classes, channels, size and normalisation of the paper's data."""
        return dict(self._about(network).made_for)

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode, freshly initialised.

        Raises:
            UsageError: the name is unknown, or an option or the size of the images does not fit this network.
        """
        known = self._about(network)
        if pretrained:
            raise UsageError(
                f"kdtool:{network}: has no pretrained weights; give your own with --weights, or --data to train it"
            )
        given = {name: value for name, value in self.as_data().items() if value is not None}
        for name in given:
            if name not in known.options:
                owners = ", ".join(other for other, about in NETWORKS.items() if name in about.options)
                raise UsageError(f"kdtool:{network}: has no --{name}; it is an option of {owners}")
        if image_size < known.smallest:
            raise UsageError(
                f"kdtool:{network}: {image_size}x{image_size} pixels are too few; "
                f"give --image-size {known.smallest} or more"
            )
        if known.grows:
            _check_size(network, known, classes, in_channels, image_size, given)
        return known.build(classes, in_channels, image_size, **given).eval()

    def _about(self, network: str) -> Known:
        if network not in NETWORKS:
            raise unknown(self.name, network, NETWORKS)
        return NETWORKS[network]


def _check_size(
    network: str, known: Known, classes: int, in_channels: int, image_size: int, given: dict[str, Any]
) -> None:
    """Raise a UsageError, before any memory is taken, where the network would be too large."""
    import torch

    with torch.device("meta"):
        module = known.build(classes, in_channels, image_size, **given)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if parameters > MOST_PARAMETERS:
        smaller = " or ".join(f"--{name}" for name in ("image-size", *given))
        raise UsageError(
            f"kdtool:{network}: would have {parameters:,} parameters for {in_channels}x{image_size}x{image_size} "
            f"pixels; give a smaller {smaller}"
        )
