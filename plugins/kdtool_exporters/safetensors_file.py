"""safetensors, tensors by name without any code (https://huggingface.co/docs/safetensors)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Exporter
from kdtool_exporters.onnx_disk import move, scratch_folder, write_errors
from kdtool_exporters.onnx_model import frozen
from kdtool_exporters.onnx_parity import accuracy, check_outputs
from kdtool_exporters.runtime_file import in_float, sizes, torch_call

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network

log = logging.getLogger("kdtool")


class Safetensors(Exporter):
    """Write the weights as a .safetensors file, under the names of the state dict, and check what was written.

    The header has what kdtool knows of the network as texts: ``classes``, ``kdtool.preparation`` and so on. A network
    that kdtool edited needs its structure too, which ``--hub-folder`` writes.
    """

    suffix: ClassVar[str] = ".safetensors"

    def export(
        self,
        network: Network,
        output: Path,
        *,
        metadata: Mapping[str, str],
        teacher: Network | None = None,
        test: Iterable[tuple[Tensor, Tensor]] | None = None,
    ) -> dict[str, Any]:
        """Write ``output`` and return the measurements as plain data.

        Raises:
            kdtool.Error: the file cannot be written, or does not give the network's outputs; no file is left behind.
        """
        from safetensors.torch import load_file

        from kdtool.utils import safetensors_bytes

        own = in_float(network)
        module, architecture = frozen(own.module, fused=True), network.architecture
        texts = {"format": "pt", **metadata}
        if "kdtool.classes" in metadata:
            texts["classes"] = metadata["kdtool.classes"]
        with scratch_folder(output) as folder:
            path = folder / output.name
            # Copies: the format has no tensors that share memory. Not save_file: only the owner may read its files.
            weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            with write_errors(output):
                path.write_bytes(safetensors_bytes(weights, texts))
            again = copy.deepcopy(module)
            again.load_state_dict(load_file(str(path)))
            call = torch_call(again)
            measured = {
                self.name: str(output),
                **sizes([path]),
                "parity": check_outputs(call, module, architecture, "safetensors file"),
                "accuracy": accuracy(call, test),
            }
            with write_errors(output):
                move(folder, output.parent)
        if architecture.is_edited:
            log.warning(
                "%s: holds the weights of a network that was edited, which %s alone does not take; --hub-folder DIR "
                "writes the structure too",
                *(output, architecture.spec),
            )
        return measured
