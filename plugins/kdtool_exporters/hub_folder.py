"""Folders as the Hugging Face Hub has them (https://huggingface.co/docs/hub), in timm's layout where that can be."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Error, Exporter, option
from kdtool_exporters.hub_card import card
from kdtool_exporters.hub_config import timm_refusal, write_config
from kdtool_exporters.onnx_disk import scratch_folder, write_errors
from kdtool_exporters.onnx_model import frozen
from kdtool_exporters.onnx_parity import accuracy, check_outputs
from kdtool_exporters.runtime_file import sizes, torch_call

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network

log = logging.getLogger("kdtool")

CONFIG, LAST = "config.json", "model.safetensors"

OPTIONAL = (CONFIG, "kdtool.safetensors")
"""The files that not every network has; those of an earlier export are removed."""


class HubFolder(Exporter):
    """Write a folder for the Hugging Face Hub, in timm's layout and in kdtool's, and check that both read it.

    ``model.safetensors`` are the weights and ``README.md`` is a model card with the measured numbers. ``config.json``
    is timm's description; only a network of timm that was not edited has one. ``kdtool.json`` is kdtool's, which every
    command reads in place of a checkpoint. Nothing in the folder is a pickle.
    """

    folder: ClassVar[bool] = True

    license: str = option("", help="license of the weights for the model card, such as apache-2.0")

    @property
    def ending(self) -> str:
        """The end of the default names of its folders."""
        return "-hub"

    @property
    def uses_content(self) -> bool:
        """Whether `export` takes what a checkpoint holds."""
        return True

    def export(
        self,
        network: Network,
        output: Path,
        *,
        metadata: Mapping[str, str],
        teacher: Network | None = None,
        test: Iterable[tuple[Tensor, Tensor]] | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write the folder ``output`` and return the measurements as plain data.

        Raises:
            kdtool.Error: the folder cannot be written, or does not give the network's outputs; nothing is left behind.
        """
        import kdtool
        from kdtool.models import content_of
        from kdtool.utils import write_folder

        if content is None:
            content = content_of(kdtool.Checkpoint(network))
        module, architecture = frozen(network.module, fused=True), network.architecture
        with scratch_folder(output) as scratch:
            folder = scratch / output.name
            folder.mkdir()
            write_folder(folder, content, metadata)
            again = kdtool.load(folder)
            call = torch_call(again.module)
            parity = check_outputs(call, module, architecture, "folder")
            refusal = timm_refusal(network)
            if refusal is None:
                refusal = self._timm(network, folder, metadata)
            scores = accuracy(call, test)
            about = {
                **sizes([folder / "model.safetensors"]),
                "layouts": ["kdtool"] if refusal else ["timm", "kdtool"],
                "parity": parity,
                "accuracy": scores,
            }
            text = card(output.name, architecture, metadata, about, timm=refusal is None, license=self.license)
            with write_errors(output):
                (folder / "README.md").write_text(text, encoding="utf-8")
                _move(folder, output)
        if refusal is not None:
            log.warning("%s: has no config.json for timm: %s; kdtool reads it as a checkpoint", output, refusal)
        return {self.name: str(output), **about}

    def _timm(self, network: Network, folder: Path, metadata: Mapping[str, str]) -> str | None:
        """Write timm's description, and return None if timm builds the same network from it, else why it does not."""
        try:
            write_config(network, folder / CONFIG, metadata)
            import timm

            module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            check_outputs(
                torch_call(module), frozen(network.module, fused=True), network.architecture, "folder in timm"
            )
        except (Error, RuntimeError, ValueError, TypeError, AssertionError, KeyError, AttributeError) as error:
            (folder / CONFIG).unlink(missing_ok=True)
            return f"timm does not build the same network from it ({' '.join(str(error).split())[:200]})"
        return None


def _move(folder: Path, output: Path) -> None:
    """Move a folder to ``output``, or its files into the folder that is there.

    The weights come last: their header tells which command made the folder, so one that was killed is not finished.
    """
    if not output.exists():
        os.replace(folder, output)
        return
    names = {file.name for file in folder.iterdir()}
    for name in OPTIONAL:
        if name not in names:
            (output / name).unlink(missing_ok=True)
    for file in sorted(folder.iterdir(), key=lambda file: file.name == LAST):
        os.replace(file, output / file.name)
