"""What the exporters for other runtimes than onnxruntime share: the checks and measurements of a file."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Error, Exporter, UsageError, option
from kdtool.errors import first_line
from kdtool.utils import gzip_bytes
from kdtool_exporters.onnx_disk import move, scratch_folder, write_errors
from kdtool_exporters.onnx_model import frozen
from kdtool_exporters.onnx_parity import accuracy, check_outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from kdtool import Architecture, Network

    Call = Callable[[Tensor], NDArray[Any]]

log = logging.getLogger("kdtool")


class RuntimeFile(Exporter):
    """Write a file for a runtime, check its outputs there, and measure its bytes, accuracy and latency.

    The file maps normalised float32 images [batch, channels, height, width] to logits [batch, classes].
    """

    runtime: ClassVar[str] = ""
    """The name of the runtime in messages."""
    distribution: ClassVar[str] = ""
    """The package that has it; its version is part of the measurements."""
    description: ClassVar[str] = ""
    """The suffix of the JSON file with the metadata, where the format has no place for them."""
    fused: ClassVar[bool] = True
    """Whether the runtime takes attention as one operator."""

    latency: bool = option(True, help="measure the latency in the runtime that the file is for")
    pairs: int = option(50, minimum=1, help="pairs of latency samples, one of the student and one of its teacher")
    threads: int = option(1, minimum=1, help="threads of the runtime in the latency measurement")
    latency_seconds: float = option(
        60.0, above=0, help="measure fewer pairs if they would take longer than this, in seconds"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pairs", "threads", "latency_seconds"):
            info = self.info(name)
            if not self.latency and getattr(self, name) != info.default:
                raise UsageError(f"{info.flag}: --no-latency measures none; leave one out")

    def write(self, module: nn.Module, architecture: Architecture, path: Path, metadata: Mapping[str, str]) -> None:
        """Write ``path`` of a `frozen` module; any exception of a library becomes an error of one line."""
        raise NotImplementedError

    def open(self, path: Path, threads: int) -> Call:
        """Return a function that runs a file: images [batch, channels, height, width] to logits [batch, classes]."""
        raise NotImplementedError

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
            kdtool.Error: the network cannot be exported, or the file does not give the network's outputs or cannot be
                written; no file is left behind.
        """
        import torch

        own = in_float(network)
        spec, what = network.architecture.spec, f"{self.runtime} file"
        with scratch_folder(output) as folder:
            path = folder / output.name
            module = self._write(own, path, metadata)
            call = self._open(path, torch.get_num_threads(), spec)
            measured = {
                self.name: str(output),
                **sizes([*folder.iterdir()]),
                "runtime": f"{self.distribution} {importlib.metadata.version(self.distribution)}",
                "parity": check_outputs(call, module, network.architecture, what, (RuntimeError, ValueError)),
                "accuracy": accuracy(call, test),
                **(self._measure(path, network.architecture, teacher) if self.latency else {"latency": None}),
            }
            with write_errors(output):
                if self.description:
                    path.with_suffix(self.description).write_text(described(path, metadata), encoding="utf-8")
                move(folder, output.parent)
        return measured

    def _write(self, network: Network, path: Path, metadata: Mapping[str, str]) -> nn.Module:
        module, spec = frozen(network.module, fused=self.fused), network.architecture.spec
        try:
            # A runtime may change the module that it converts.
            self.write(copy.deepcopy(module), network.architecture, path, metadata)
        except (Error, OSError):
            raise
        except Exception as error:  # of a converter, in any way
            raise Error(
                f"{spec}: {self.distribution} cannot convert it ({type(error).__name__}: {first_line(error)}); "
                "nothing was written"
            ) from error
        return module

    def _open(self, path: Path, threads: int, spec: str) -> Call:
        try:
            return self.open(path, threads)
        except Exception as error:  # of a runtime, in any way
            raise Error(f"{spec}: {self.runtime} does not load its file: {first_line(error)}") from error

    def _measure(self, path: Path, architecture: Architecture, teacher: Network | None) -> dict[str, Any]:
        """Return the latency of the file for one image, beside that and the size of the teacher."""
        import torch

        from kdtool.exporting import cpu_name, measure_calls

        spec = architecture.spec

        def caller(file: Path, network: Architecture) -> Callable[[], Any]:
            call = self._open(file, self.threads, spec)
            image = torch.randn(1, *network.input, generator=torch.Generator().manual_seed(0))
            return lambda: call(image)

        with tempfile.TemporaryDirectory() as scratch:
            student, again = caller(path, architecture), caller(path, architecture)
            beside, about = None, {}
            if teacher is not None:
                teacher_path = Path(scratch) / f"teacher{self.suffix}"
                self._write(in_float(teacher, say=False), teacher_path, {})
                about = {"teacher": sizes([*teacher_path.parent.iterdir()])}
                beside = caller(teacher_path, teacher.architecture)
            measured = measure_calls(student, again, beside, pairs=self.pairs, seconds=self.latency_seconds)
        facts = {"threads": self.threads, "batch": 1, "provider": self.name, "cpu": cpu_name()}
        return {"latency": {**measured, **facts}, **about}


def in_float(network: Network, *, say: bool = True) -> Network:
    """Return a network that computes in float; say so if it was trained in 8 bits."""
    from kdtool.models import without_quantiser

    plain = without_quantiser(network)
    if say and plain is not network:
        log.warning(
            "%s: was trained in 8 bits, and this file computes in float; --onnx --int8: in 8 bits",
            network.architecture.spec,
        )
    return plain


def exported(module: nn.Module, architecture: Architecture, *, one_image: bool = False) -> Any:
    """Return torch's ``ExportedProgram`` of a module, for any batch size or for one image.

    No path of this machine stays in it.

    Raises:
        kdtool.Error: torch.export cannot export the module; the message says why.
    """
    import torch
    from torch.fx import GraphModule

    from kdtool_exporters.onnx_model import quiet

    # Two images: torch.export treats a dimension of 1 as fixed.
    images = torch.zeros(1 if one_image else 2, *architecture.input)
    shapes = None if one_image else ({0: torch.export.Dim("batch")},)
    try:
        with quiet():
            program = torch.export.export(module, (images,), dynamic_shapes=shapes)
    except Exception as error:  # of torch's tracer, in any way
        raise Error(
            f"{architecture.spec}: torch.export {torch.__version__} cannot export it: {first_line(error)}"
        ) from error
    for part in program.graph_module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def described(path: Path, metadata: Mapping[str, str]) -> str:
    """Return what is known of a file as JSON: its name and SHA-256, by which the two belong together, and metadata."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return json.dumps({"file": path.name, "sha256": digest, **metadata}, indent=1, ensure_ascii=False) + "\n"


def sizes(files: Iterable[Path]) -> dict[str, int]:
    """Return the bytes of files, and those that are left of each by gzip."""
    files = list(files)
    return {
        "file_bytes": sum(file.stat().st_size for file in files),
        "gzip_bytes": sum(gzip_bytes(file) for file in files),
    }


def one_by_one(call: Call) -> Call:
    """Return a function that runs the images of a batch one after another."""
    import numpy as np

    # A runtime may return the same memory again: np.concatenate copies it after all calls, so each is copied here.
    return lambda images: np.concatenate([np.array(call(images[index : index + 1])) for index in range(len(images))])


def torch_call(module: nn.Module) -> Call:
    """Return a function that runs a module: images [batch, channels, height, width] to logits [batch, classes]."""
    import torch

    def call(images: Tensor) -> NDArray[Any]:
        with torch.inference_mode():
            logits: NDArray[Any] = module(images).numpy()
        return logits

    return call
