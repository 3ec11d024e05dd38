"""Run an ONNX file in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool import Error
from kdtool.errors import first_line
from kdtool_exporters.onnx_model import INPUT, OUTPUT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def open_file(path: Path, spec: str) -> Any:
    """Return an onnxruntime session of a file on the CPU; ``spec`` names the network in the error.

    Raises:
        kdtool.Error: onnxruntime does not load the file, for example because it lacks a kernel for this processor.
    """
    import onnxruntime
    import torch
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (state.Fail, state.InvalidGraph, state.NotImplemented) as error:
        raise Error(
            f"{spec}: onnxruntime {onnxruntime.__version__} does not load its ONNX file: {first_line(error)}"
        ) from error


def run(session: Any, images: Tensor) -> NDArray[np.float32]:
    """Return the logits [batch, classes] of a file's session for images [batch, channels, height, width]."""
    outputs: list[NDArray[np.float32]] = session.run([OUTPUT], {INPUT: images.cpu().contiguous().numpy()})
    return outputs[0]


def outputs(session: Any, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the logits [images, classes] and the labels [images] of all batches; both are empty if there are none."""
    import numpy as np

    logits, labels = [], []
    for images, target in batches:
        logits.append(run(session, images))
        labels.append(target.cpu().numpy())
    if not logits:
        return np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
    return np.concatenate(logits), np.concatenate(labels)


def run_all(session: Any, images: Sequence[Tensor]) -> NDArray[np.float32]:
    """Return the logits [images, classes] of all batches."""
    import numpy as np

    return np.concatenate([run(session, batch) for batch in images])
