"""The classifiers of torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Error, Source
from kdtool_teachers.names import unknown
from kdtool_teachers.offline import check_torchvision

if TYPE_CHECKING:
    from torch import nn


class Torchvision(Source):
    """Build a classification network of torchvision, such as torchvision:resnet18."""

    library: ClassVar[str] = "torchvision"

    def networks(self) -> list[str]:
        """Return the names of torchvision's classifiers (not of its detection, segmentation and video networks)."""
        from torchvision import models

        return list(models.list_models(module=models))

    def defaults(self, network: str) -> dict[str, Any]:
        """Return the settings with which the default weights were trained."""
        from torchvision import models

        if network not in self.networks():
            raise unknown(self.name, network, self.networks())
        weights = models.get_model_weights(network).DEFAULT
        preset = weights.transforms()
        mean, std = tuple(preset.mean), tuple(preset.std)
        if network in _TRANSFORM_INPUT:
            mean = std = (0.5, 0.5, 0.5)
        return {
            "classes": len(weights.meta["categories"]),
            "in_channels": 3,
            "image_size": int(preset.crop_size[0]),
            "mean": mean,
            "std": std,
            "crop": preset.crop_size[0] / preset.resize_size[0],
            "interpolation": preset.interpolation.value,
        }

    @classmethod
    def check_weights(cls, network: str) -> None:
        """Check that pretrained weights may be had.

        Raises:
            Error: they are not on this machine, and the server cannot be reached.
        """
        check_torchvision(network)

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode; pretrained weights are adapted to classes, channels and size.

        Raises:
            UsageError: the name is unknown.
            Error: the size does not fit the network, or the pretrained weights cannot be downloaded.
        """
        from torchvision import models

        from kdtool_teachers.torchvision_adapt import adapt_input, load_pretrained

        if network not in self.networks():
            raise unknown(self.name, network, self.networks())
        options: dict[str, Any] = {"num_classes": classes, **_options(network, image_size)}
        try:
            module: nn.Module = models.get_model(network, weights=None, **options)
        except (ValueError, AssertionError) as error:
            # ViT and MaxViT divide the image into patches and check its size when they are built.
            reason = " ".join(str(error).split())
            raise Error(
                f"torchvision:{network}: cannot be built for --image-size {image_size} ({reason}); "
                f"it was made for {self.defaults(network)['image_size']}"
            ) from error
        adapt_input(module, in_channels)
        if pretrained:
            load_pretrained(module, network)
        return module.eval()


# Their pretrained weights expect images in -1..1. torchvision's option `transform_input` converts normalised images to
# that; here mean and std are 0.5 instead, so that the module is the same with and without pretrained weights.
_TRANSFORM_INPUT = ("googlenet", "inception_v3")


def _options(network: str, image_size: int) -> dict[str, Any]:
    """Return the arguments that the network's constructor needs besides the number of classes."""
    if network in _TRANSFORM_INPUT:
        # With auxiliary heads the network would return tuples in training. A value for init_weights avoids a warning.
        return {"aux_logits": False, "transform_input": False, "init_weights": True}
    if network.startswith("vit_"):
        return {"image_size": image_size}
    if network.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}
