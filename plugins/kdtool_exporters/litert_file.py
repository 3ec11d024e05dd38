"""LiteRT, formerly TensorFlow Lite (https://ai.google.dev/edge/litert), for phones and small devices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool_exporters.native_output import silenced
from kdtool_exporters.runtime_file import RuntimeFile, one_by_one

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Architecture
    from kdtool_exporters.runtime_file import Call


class LiteRT(RuntimeFile):
    """Write a .tflite file for LiteRT with litert-torch, check that it gives the network's outputs, and measure it.

    It takes one image at a time, as PyTorch has it: [1, channels, height, width]. Its classes and normalisation are in
    a .tflite.json file beside it.
    """

    also_called: ClassVar[tuple[str, ...]] = ("tflite", "tensorflow-lite", "tf-lite")
    suffix: ClassVar[str] = ".tflite"
    description: ClassVar[str] = ".tflite.json"
    companions: ClassVar[tuple[str, ...]] = (description,)
    needs: ClassVar[str] = "litert_torch"
    install: ClassVar[str] = "pip install 'kdtool[litert]'"
    runtime: ClassVar[str] = "LiteRT"
    distribution: ClassVar[str] = "litert-torch"
    fused: ClassVar[bool] = False

    def write(self, module: nn.Module, architecture: Architecture, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the model."""
        import torch

        with silenced():
            import litert_torch

            litert_torch.convert(module, (torch.zeros(1, *architecture.input),)).export(str(path))

    def open(self, path: Path, threads: int) -> Call:
        """Return the model as a function."""
        with silenced():
            from ai_edge_litert.interpreter import Interpreter

            interpreter: Any = Interpreter(str(path), num_threads=threads)
            interpreter.allocate_tensors()
        source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

        def call(images: Tensor) -> Any:
            interpreter.set_tensor(source, images.contiguous().numpy())
            interpreter.invoke()
            return interpreter.get_tensor(target)

        return one_by_one(call)
