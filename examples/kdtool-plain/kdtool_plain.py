"""Name the source of the method here: authors, title, year, arXiv number."""

from typing import Any

from torch import nn

from kdtool import Error, Source, option


class Plain(Source):
    """Build networks of linear layers."""

    width: int = option(64, minimum=1, help="units of the hidden layer")

    def networks(self) -> list[str]:
        return ["one-hidden"]

    def defaults(self, network: str) -> dict[str, Any]:
        return {"classes": 10, "in_channels": 1, "image_size": 28, "mean": (0.5,), "std": (0.5,)}

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        if network != "one-hidden" or pretrained:
            raise Error(f"plain:{network}: there is only plain:one-hidden, without pretrained weights")
        pixels = in_channels * image_size**2
        layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, self.width), nn.ReLU(), nn.Linear(self.width, classes))
        return layers.eval()
