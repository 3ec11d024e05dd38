"""The networks of the papers behind the built-in methods that no library provides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdtool import Source, UsageError, option
from kdtool_teachers.catalogue import NETWORKS, Entry
from kdtool_teachers.names import unknown

if TYPE_CHECKING:
    from torch import nn

# 1 GiB of float32 weights. With their papers' data these networks have at most 22 M parameters.
MOST_PARAMETERS = 2**28


class OwnModels(Source):
    """Build a network of the papers whose methods kdtool has."""

    width: int | None = option(
        None,
        minimum=1,
        maximum=4096,
        help="maps of the first layer, of conv4-fc2: 19 gives 0.2 M parameters, 42 (the default) 1 M, 67 2.6 M; of "
        "resnet9: 32 gives 1.6 M, 64 (the default) 6.6 M; of the first stage of airbench94: 64 gives 2 M",
    )

    def networks(self) -> list[str]:
        """Return the names that `build` knows."""
        return list(NETWORKS)

    def defaults(self, network: str) -> dict[str, Any]:
        """Return the classes, channels, size and normalisation of the paper's data."""
        return dict(self._entry(network).paper_data)

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode, freshly initialised.

        Raises:
            UsageError: the name is unknown, or an option or the size of the images does not fit this network.
        """
        entry = self._entry(network)
        if pretrained:
            raise UsageError(
                f"kdtool:{network}: has no pretrained weights; give your own with --weights, or --data to train it"
            )
        options = {name: value for name, value in self.as_data().items() if value is not None}
        for name in options:
            if name not in entry.options:
                owners = ", ".join(owner for owner, candidate in NETWORKS.items() if name in candidate.options)
                raise UsageError(f"kdtool:{network}: has no --{name}; it is an option of {owners}")
        if image_size < entry.min_image_size:
            raise UsageError(
                f"kdtool:{network}: {image_size}x{image_size} pixels are too few; "
                f"give --image-size {entry.min_image_size} or more"
            )
        if entry.grows_with_image:
            _check_size(network, entry, classes, in_channels, image_size, options)
        return entry.build(classes, in_channels, image_size, **options).eval()

    def _entry(self, network: str) -> Entry:
        if network not in NETWORKS:
            raise unknown(self.name, network, NETWORKS)
        return NETWORKS[network]


def _check_size(
    network: str, entry: Entry, classes: int, in_channels: int, image_size: int, options: dict[str, Any]
) -> None:
    """Raise a UsageError if the network would be too large, before its memory is allocated."""
    import torch

    with torch.device("meta"):
        module = entry.build(classes, in_channels, image_size, **options)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if parameters > MOST_PARAMETERS:
        smaller = " or ".join(f"--{name}" for name in ("image-size", *options))
        raise UsageError(
            f"kdtool:{network}: would have {parameters:,} parameters for {in_channels}x{image_size}x{image_size} "
            f"pixels; give a smaller {smaller}"
        )
