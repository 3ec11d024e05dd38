"""ExecuTorch, PyTorch's runtime for phones and small devices (https://docs.pytorch.org/executorch)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool_exporters.native_output import silenced
from kdtool_exporters.runtime_file import RuntimeFile, exported, one_by_one

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Architecture
    from kdtool_exporters.runtime_file import Call


class ExecuTorch(RuntimeFile):
    """Write a .pte file for ExecuTorch with its XNNPACK backend, check it in the runtime, and measure it.

    It takes one image at a time, since the memory of a program is planned for the largest batch. Its classes and
    normalisation are in a .pte.json file beside it.
    """

    suffix: ClassVar[str] = ".pte"
    description: ClassVar[str] = ".pte.json"
    companions: ClassVar[tuple[str, ...]] = (description,)
    needs: ClassVar[str] = "executorch"
    install: ClassVar[str] = "pip install 'kdtool[executorch]'"
    runtime: ClassVar[str] = "ExecuTorch"
    distribution: ClassVar[str] = "executorch"
    fused: ClassVar[bool] = False

    def write(self, module: nn.Module, architecture: Architecture, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the program; what XNNPACK does not have is left to the portable kernels."""
        with silenced():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            program = exported(module, architecture, one_image=True)
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        path.write_bytes(lowered.buffer)

    def open(self, path: Path, threads: int) -> Call:
        """Return the program as a function; ExecuTorch has one pool of threads for all programs of a process."""
        with silenced():
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

            portable_lib._unsafe_reset_threadpool(threads)
            program: Any = Runtime.get().load_program(path)
            method = program.load_method("forward")

        def call(images: Tensor) -> Any:
            return method.execute([images.contiguous()])[0].numpy()

        # The program stays alive as long as the function.
        call.program = program  # type: ignore[attr-defined]
        return one_by_one(call)
