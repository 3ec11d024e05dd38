"""The classifiers of timm (Wightman, 2019)."""

from __future__ import annotations

import glob
import inspect
import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Error, Source
from kdtool.errors import nearest
from kdtool_teachers.names import unknown
from kdtool_teachers.offline import UNAVAILABLE, check_timm, is_missing, without_retries

if TYPE_CHECKING:
    from torch import nn


class Timm(Source):
    """Build a classification network of timm, such as timm:resnet18."""

    library: ClassVar[str] = "timm"

    def networks(self) -> list[str]:
        """Return the names of timm's networks, without the tags of their pretrained weights."""
        import timm

        return list(timm.list_models())

    def defaults(self, network: str) -> dict[str, Any]:
        """Return the settings with which the network's first pretrained weights were trained.

        A network that timm has only as a feature extractor gets ImageNet's 1000 classes.
        """
        config = self._config(network)
        return {
            "classes": config.num_classes or 1000,
            "in_channels": config.input_size[0],
            "image_size": min(config.input_size[1:]),
            "mean": tuple(config.mean),
            "std": tuple(config.std),
            "crop": config.crop_pct,
            "interpolation": config.interpolation,
        }

    @classmethod
    def check_weights(cls, network: str) -> None:
        """Check that pretrained weights may be had.

        Raises:
            Error: they are not on this machine, and the server cannot be reached.
        """
        check_timm(network)

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode; timm adapts pretrained weights to classes, channels and size.

        Raises:
            UsageError: the name is unknown.
            Error: the network is not a classifier or does not accept that input, or its pretrained weights are not
                available.
        """
        import timm

        config = self._config(network)
        if not is_classifier(network):
            raise self._not_a_classifier(network)
        options: dict[str, Any] = {"num_classes": classes, "in_chans": in_channels}
        # timm's flag for networks that are built for one image size and take it as an argument.
        if config.fixed_input_size:
            options["img_size"] = image_size
        if pretrained and not timm.is_model_pretrained(network):
            raise Error(f"timm:{network}: timm has no pretrained weights for it; leave --pretrained out")
        shape = f"{classes} classes and {in_channels}x{image_size}x{image_size} pixels"
        try:
            with without_retries() if pretrained else nullcontext():
                module: nn.Module = timm.create_model(network, pretrained=pretrained, **options)
        except Exception as error:  # any of a thousand constructors or of three download libraries may fail
            reason = " ".join(str(error).split()) or type(error).__name__
            if pretrained and is_missing(error):
                raise Error(f"timm:{network}: {UNAVAILABLE}") from error
            if pretrained:
                raise Error(
                    f"timm:{network}: cannot be built with pretrained weights for {shape} ({reason})"
                ) from error
            made_for = "x".join(str(size) for size in config.input_size)
            raise Error(
                f"timm:{network}: cannot be built for {shape} ({reason}); timm made it for {made_for} pixels"
            ) from error
        if getattr(module, "num_classes", classes) != classes:
            raise self._not_a_classifier(network)
        if pretrained and not config.num_classes:
            logging.getLogger("kdtool").warning(
                "timm:%s: its pretrained weights have no classifier, and the one here is random: train it, or with "
                "--epochs 0 let it teach by its maps (--method fitnets, rkd, wkd --logit-weight 0 --feature-weight "
                "0.006), not by its logits",
                network,
            )
        return module.eval()

    def _not_a_classifier(self, network: str) -> Error:
        hint = nearest(network, [other for other in self.networks() if other != network and is_classifier(other)])
        return Error(f"timm:{network}: is not a classifier (timm has it only as a feature extractor){hint}")

    def _config(self, network: str) -> Any:
        """Return timm's description of a network, ``timm.models.PretrainedCfg``."""
        import timm

        architecture, _, tag = network.partition(".")
        # hf-hub: and local-dir: names are refused: timm would read files, and arguments for its code, from elsewhere.
        # All of timm's names take 12 ms to be sorted, each time.
        if architecture not in timm.list_models(glob.escape(architecture)) or not timm.is_model(architecture):
            raise unknown(self.name, network, self.networks())
        if tag and not timm.is_model_pretrained(network):
            raise unknown(self.name, network, [architecture, *timm.list_pretrained(f"{architecture}.*")])
        return timm.get_pretrained_cfg(network)


def is_classifier(network: str) -> bool:
    """Return whether a network can have a classifier, by the class that timm declares for it; True if it declares none.

    It is not built to find out, since that takes up to 15 seconds for some encoders.
    """
    import timm

    declared = inspect.signature(timm.models.model_entrypoint(network.partition(".")[0])).return_annotation
    return (
        not isinstance(declared, type) or declared is inspect.Signature.empty or hasattr(declared, "reset_classifier")
    )
