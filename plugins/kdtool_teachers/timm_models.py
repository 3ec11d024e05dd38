"""The classifiers of timm (Wightman, 2019)."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from kdtool import Error, Source
from kdtool.errors import nearest
from kdtool_teachers.names import unknown

if TYPE_CHECKING:
    from torch import nn


class Timm(Source):
    """Build a classification network of timm, such as timm:resnet18."""

    def networks(self) -> list[str]:
        """Return the names of timm's networks, without the tags of their pretrained weights."""
        import timm

        return list(timm.list_models())

    def defaults(self, network: str) -> dict[str, Any]:
        """Return what the network's first pretrained weights were trained with.

        A network that timm has as a feature extractor alone gets ImageNet's 1000 classes.
        """
        about = self._about(network)
        return {
            "classes": about.num_classes or 1000,
            "in_channels": about.input_size[0],
            "image_size": min(about.input_size[1:]),
            "mean": tuple(about.mean),
            "std": tuple(about.std),
        }

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode; timm adapts pretrained weights to classes, channels and size.

        Raises:
            UsageError: the name is unknown.
            Error: the network is no classifier, does not take that input, or its weights cannot be had.
        """
        import timm

        about = self._about(network)
        if not _classifies(network):
            raise self._no_classifier(network)
        options: dict[str, Any] = {"num_classes": classes, "in_chans": in_channels}
        # timm's own mark of the networks that are built for one size and take it as an argument.
        if about.fixed_input_size:
            options["img_size"] = image_size
        if pretrained and not timm.is_model_pretrained(network):
            raise Error(f"timm:{network}: timm has no pretrained weights for it; leave --pretrained out")
        shape = f"{classes} classes and {in_channels}x{image_size}x{image_size} pixels"
        try:
            module: nn.Module = timm.create_model(network, pretrained=pretrained, **options)
        except Exception as error:  # a thousand constructors, and three libraries that download
            reason = " ".join(str(error).split()) or type(error).__name__
            if pretrained:
                raise Error(
                    f"timm:{network}: cannot be had with pretrained weights for {shape} ({reason}); without a "
                    "connection give a downloaded file with --weights"
                ) from error
            made_for = "x".join(str(size) for size in about.input_size)
            raise Error(
                f"timm:{network}: cannot be built for {shape} ({reason}); timm made it for {made_for} pixels"
            ) from error
        if getattr(module, "num_classes", classes) != classes:
            raise self._no_classifier(network)
        return module.eval()

    def _no_classifier(self, network: str) -> Error:
        others = nearest(network, [other for other in self.networks() if other != network and _classifies(other)])
        return Error(f"timm:{network}: is no classifier (timm has it as a feature extractor alone){others}")

    def _about(self, network: str) -> Any:
        """Return timm's description of a network, ``timm.models.PretrainedCfg``."""
        import timm

        architecture, _, tag = network.partition(".")
        known = self.networks()
        # The lists hold no hf-hub: or local-dir: names, which would fetch files, and code's arguments, from elsewhere.
        if architecture not in known or not timm.is_model(architecture):
            raise unknown(self.name, network, known)
        if tag and not timm.is_model_pretrained(network):
            raise unknown(self.name, network, [architecture, *timm.list_pretrained(f"{architecture}.*")])
        return timm.get_pretrained_cfg(network)


def _classifies(network: str) -> bool:
    """Whether the class that timm says it builds, where it says one, can be given a classifier.

    Building it to find out takes some of the encoders a quarter of a minute.
    """
    import timm

    built = inspect.signature(timm.models.model_entrypoint(network.partition(".")[0])).return_annotation
    return not isinstance(built, type) or built is inspect.Signature.empty or hasattr(built, "reset_classifier")
