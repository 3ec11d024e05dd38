"""ONNX, an open format for networks (https://onnx.ai), written by torch.onnx, checked and measured with onnxruntime."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kdtool import Error, Exporter, option
from kdtool.utils import gzip_bytes
from kdtool_exporters.onnx_model import frozen, write
from kdtool_exporters.onnx_parity import check_parity, run

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Network


class Onnx(Exporter):
    """Write an ONNX file, check that it gives the network's outputs, and measure its bytes, accuracy and latency.

    The file maps normalised float32 ``images`` [batch, channels, height, width] to ``logits`` [batch, classes], for any
    batch size. It is written only if |y_onnx - y| <= 1e-4 max|y| on random images and the best classes are the same.
    If not, the file may still pass a comparison with the network in float64, where its relative error may be 1e-4 or
    four times that of the network's own float32 outputs, whichever is larger.
    """

    suffix: ClassVar[str] = ".onnx"

    opset: int = option(18, minimum=18, help="version of the ONNX operator set")
    latency: bool = option(True, help="measure the latency in onnxruntime")
    pairs: int = option(50, minimum=1, help="pairs of latency samples, one of the student and one of its teacher")
    threads: int = option(1, minimum=1, help="threads of onnxruntime in the latency measurement")
    latency_batch: int = option(1, minimum=1, help="images in a batch in the latency measurement")
    latency_seconds: float = option(
        60.0, above=0, help="measure fewer pairs if they would take longer than this, in seconds"
    )

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
        module, spec = frozen(network.module), network.architecture.spec
        with _scratch_folder(output) as folder:
            path = folder / output.name
            with _write_errors(output):
                write(module, network.architecture, path, opset=self.opset, metadata=metadata)
            session = _session(path, spec)
            measured: dict[str, Any] = {
                "onnx": str(output),
                "file_bytes": sum(file.stat().st_size for file in folder.iterdir()),
                "gzip_bytes": sum(gzip_bytes(file) for file in folder.iterdir()),
                "opset": self.opset,
                "parity": check_parity(session, module, network.architecture),
                "accuracy": _accuracy(session, test) if test is not None else None,
                "latency": self._measure(path, teacher) if self.latency else None,
            }
            with _write_errors(output):
                _move(folder, output.parent)
        return measured

    def _measure(self, path: Path, teacher: Network | None) -> dict[str, Any]:
        """Return the latency of the file, compared with that of the teacher, which is exported in the same way."""
        from kdtool.exporting import measure_latency

        with tempfile.TemporaryDirectory() as scratch:
            teacher_path = None
            if teacher is not None:
                teacher_path = Path(scratch) / "teacher.onnx"
                with _write_errors(teacher_path):
                    write(frozen(teacher.module), teacher.architecture, teacher_path, opset=self.opset, metadata={})
            return measure_latency(
                path,
                teacher_path,
                batch=self.latency_batch,
                threads=self.threads,
                pairs=self.pairs,
                seconds=self.latency_seconds,
            )


def _session(path: Path, spec: str) -> Any:
    """Return an onnxruntime session of a file; ``spec`` names the network in the error."""
    import onnxruntime
    import torch
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (state.Fail, state.InvalidGraph, state.NotImplemented) as error:
        reason = str(error).splitlines()[0]
        raise Error(f"{spec}: onnxruntime {onnxruntime.__version__} does not load its ONNX file: {reason}") from error


def _accuracy(session: Any, test: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any] | None:
    """Return the accuracy of the file itself on the batches of the test split, or None if there are none."""
    correct = images = 0
    for batch, labels in test:
        correct += int((run(session, batch).argmax(axis=1) == labels.cpu().numpy()).sum())
        images += len(labels)
    if images == 0:
        return None
    return {"split": "test", "accuracy": correct / images, "error": 1 - correct / images, "images": images}


@contextlib.contextmanager
def _scratch_folder(output: Path) -> Iterator[Path]:
    """Yield a folder on the same disk as ``output``, and delete it afterwards, also after an error.

    A temporary folder and not a temporary file name: a model refers to a second file of weights by that file's name.
    """
    with _write_errors(output):
        scratch = tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent)
    with scratch as folder:
        yield Path(folder)


@contextlib.contextmanager
def _write_errors(output: Path) -> Iterator[None]:
    """Turn an OSError into an error that names ``output``."""
    try:
        yield
    except OSError as error:
        raise Error(f"{output}: cannot be written: {error.strerror or error}; name another with -o") from error


def _move(folder: Path, target: Path) -> None:
    """Move the files of a folder to ``target``; after a crash each of them is there completely or not at all."""
    # The model last: without its weights it cannot be loaded.
    for file in sorted(folder.iterdir(), key=lambda file: file.suffix == ".onnx"):
        with file.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(file, target / file.name)
    # The renames survive a crash only after the directory is synced.
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
