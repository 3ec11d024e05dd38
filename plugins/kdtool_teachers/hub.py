"""Networks of timm from the Hugging Face Hub (https://huggingface.co/docs/hub/timm), or from a folder in its layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Error, Source, UsageError, option
from kdtool_teachers.hub_description import described, described_by, of_weights
from kdtool_teachers.hub_files import CONFIG, WEIGHTS, check_cached, file_of, is_folder

if TYPE_CHECKING:
    from torch import nn


class HuggingFace(Source):
    """Build a network of timm from the Hugging Face Hub, such as hf:timm/resnet18.a1_in1k, or from such a folder.

    Its weights come with it; they are read from ``model.safetensors`` and from no other file. As a student,
    ``hf:USER/NAME`` is the structure alone. ``USER/NAME@REVISION`` is another version, ``hf:./FOLDER`` a folder.
    """

    library: ClassVar[str] = "timm"
    brings_weights: ClassVar[bool] = True

    described: str = option("", help="what config.json says, as a checkpoint records it; by default it is read")

    def networks(self) -> list[str]:
        """Return no names: the Hub has them."""
        return []

    def pinned(self, network: str) -> tuple[Source, str]:
        """Return the source with what ``config.json`` says, so that a checkpoint can be read without the Hub.

        A folder is recorded by its name alone.
        """
        recorded = (Path(network).expanduser().resolve().name or "folder") if is_folder(network) else network
        return HuggingFace(described=json.dumps(self._description(network))), recorded

    @classmethod
    def check_weights(cls, network: str) -> None:
        """Check that the weights may be had.

        Raises:
            Error: they are not in the cache, and the Hub cannot be reached.
        """
        if not is_folder(network):
            check_cached(network)

    def defaults(self, network: str) -> dict[str, Any]:
        """Return what the weights were trained with."""
        description = self._description(network)
        return {
            **{key: description[key] for key in ("classes", "in_channels", "image_size")},
            **{key: tuple(description[key]) for key in ("mean", "std")},
            **{key: description[key] for key in ("crop", "interpolation")},
        }

    def class_names(self, network: str) -> tuple[str, ...] | None:
        """Return the names of the classes of the weights."""
        names = self._description(network)["labels"]
        return tuple(names) if names else None

    def build(
        self, network: str, *, classes: int, in_channels: int, image_size: int, pretrained: bool = False
    ) -> nn.Module:
        """Return the network in eval mode; timm adapts pretrained weights to classes, channels and size.

        Raises:
            Error: the description is damaged, the network cannot be built for that input, or its weights cannot be had.
        """
        import timm

        if not self.described:  # of a file that was tampered with: a network is asked for by a person alone
            raise Error(f"hf:{network}: its description is missing; the file is damaged")
        about = self._description(network)
        options: dict[str, Any] = {**about["arguments"], "num_classes": classes, "in_chans": in_channels}
        if about["sized"]:
            options["img_size"] = image_size
        if pretrained:
            weights = {**of_weights(about), "file": str(file_of(network, WEIGHTS))}
            options |= {"pretrained": True, "pretrained_cfg": weights}
        try:
            module: nn.Module = timm.create_model(about["architecture"], **options)
        except Exception as error:  # any of a thousand constructors may fail, or the reader of the weights
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            shape = f"{classes} classes and {in_channels}x{image_size}x{image_size} pixels"
            raise Error(f"hf:{network}: cannot be built for {shape} ({reason})") from error
        return module.eval()

    def _description(self, network: str) -> dict[str, Any]:
        if self.described:
            try:
                return described(json.loads(self.described))
            except (ValueError, RecursionError) as error:
                raise Error(f"hf:{network}: its description is damaged") from error
            except UsageError as error:
                raise Error(f"hf:{network}: {error}") from error
        path = file_of(network, CONFIG)
        try:
            return described_by(path)
        except UsageError as error:
            raise Error(f"hf:{network}: {error}") from error
