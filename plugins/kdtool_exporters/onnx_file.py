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
    """Write an ONNX file that gives the network's own outputs, and measure its bytes, accuracy and latency.

    The file takes normalised float32 ``images`` [batch, channels, height, width], any number of them, and gives
    ``logits`` [batch, classes]. It is written only where |y_onnx - y| <= 1e-4 max|y| on random images, and the best
    classes are the same; where the network's own float32 is farther than that from its float64, as near as that.
    """

    suffix: ClassVar[str] = ".onnx"

    opset: int = option(18, minimum=18, help="version of the ONNX operators")
    latency: bool = option(True, help="measure the latency in onnxruntime, or leave it out")
    pairs: int = option(50, minimum=1, help="pairs of latency samples, the student beside its teacher")
    threads: int = option(1, minimum=1, help="threads of onnxruntime while the latency is measured")
    latency_batch: int = option(1, minimum=1, help="images in a batch while the latency is measured")
    latency_seconds: float = option(60.0, above=0, help="measure fewer pairs where they would take longer")

    def export(
        self,
        network: Network,
        output: Path,
        *,
        metadata: Mapping[str, str],
        teacher: Network | None = None,
        test: Iterable[tuple[Tensor, Tensor]] | None = None,
    ) -> dict[str, Any]:
        """Write ``output`` and return what was measured, as plain data.

        Raises:
            kdtool.Error: the network cannot be exported, the file does not give its outputs, or cannot be written;
                nothing is left behind.
        """
        module, spec = frozen(network.module), network.architecture.spec
        with _folder_beside(output) as folder:
            path = folder / output.name
            with _telling(output):
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
            with _telling(output):
                _move(folder, output.parent)
        return measured

    def _measure(self, path: Path, teacher: Network | None) -> dict[str, Any]:
        """Return the latency of the file beside that of the teacher, exported in the same way."""
        from kdtool.exporting import measure_latency

        with tempfile.TemporaryDirectory() as scratch:
            against = None
            if teacher is not None:
                against = Path(scratch) / "teacher.onnx"
                with _telling(against):
                    write(frozen(teacher.module), teacher.architecture, against, opset=self.opset, metadata={})
            return measure_latency(
                path,
                against,
                batch=self.latency_batch,
                threads=self.threads,
                pairs=self.pairs,
                seconds=self.latency_seconds,
            )


def _session(path: Path, spec: str) -> Any:
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
    """Return the accuracy of the file itself on the batches of the test split, or None where there are none."""
    correct = images = 0
    for batch, labels in test:
        correct += int((run(session, batch).argmax(axis=1) == labels.cpu().numpy()).sum())
        images += len(labels)
    if images == 0:
        return None
    return {"split": "test", "accuracy": correct / images, "error": 1 - correct / images, "images": images}


@contextlib.contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """Yield a folder on the same disk as ``output`` that is gone afterwards, whatever happens.

    Not a temporary name, for a model finds weights in a second file by that file's name.
    """
    with _telling(output):
        scratch = tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent)
    with scratch as folder:
        yield Path(folder)


@contextlib.contextmanager
def _telling(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Error(f"{output}: cannot be written: {error.strerror or error}; name another with -o") from error


def _move(folder: Path, target: Path) -> None:
    """Sync the files of a folder and rename them into another, where each is whole or not there."""
    # The model last, which is of no use before its weights are there.
    for file in sorted(folder.iterdir(), key=lambda file: file.suffix == ".onnx"):
        with file.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(file, target / file.name)
    # The renames themselves last only once the directory is synced.
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
