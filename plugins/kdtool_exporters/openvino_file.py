"""OpenVINO's intermediate representation (https://docs.openvino.ai), for processors of Intel and others."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool_exporters.onnx_model import write
from kdtool_exporters.runtime_file import RuntimeFile

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Architecture
    from kdtool_exporters.runtime_file import Call

OPSET = 18
"""The version of the ONNX operators that OpenVINO gets."""


class OpenVINO(RuntimeFile):
    """Write an .xml file and a .bin file for OpenVINO, check that they give the network's outputs, and measure them.

    The weights stay float32. What kdtool knows of the network is in the runtime information, below ``kdtool``.
    """

    suffix: ClassVar[str] = ".xml"
    companions: ClassVar[tuple[str, ...]] = (".bin",)
    needs: ClassVar[str] = "openvino"
    install: ClassVar[str] = "pip install 'kdtool[openvino]'"
    runtime: ClassVar[str] = "OpenVINO"
    distribution: ClassVar[str] = "openvino"
    fused: ClassVar[bool] = False

    def write(self, module: nn.Module, architecture: Architecture, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the two files, by way of ONNX: OpenVINO's converter of torch's programs reports its use to a server."""
        import openvino

        with tempfile.TemporaryDirectory() as scratch:
            onnx = Path(scratch) / "network.onnx"
            write(module, architecture, onnx, opset=OPSET, metadata={})
            model = openvino.Core().read_model(str(onnx))
        for name, value in metadata.items():
            model.set_rt_info(value, ["kdtool", name.removeprefix("kdtool.")])
        openvino.save_model(model, str(path), compress_to_fp16=False)

    def open(self, path: Path, threads: int) -> Call:
        """Return the model on the CPU in float32, as a function."""
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        model = openvino.Core().compile_model(str(path), "CPU", settings)
        request: Any = model.create_infer_request()

        def call(images: Tensor) -> Any:
            return request.infer([images.contiguous().numpy()], share_inputs=True)[0]

        return call
