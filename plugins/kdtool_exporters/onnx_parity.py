"""Whether an ONNX file gives its network's outputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdtool import Error
from kdtool_exporters.onnx_model import INPUT, OUTPUT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from kdtool import Architecture

BATCHES = (1, 3)
TOLERANCE = 1e-4
# How many times farther from exact arithmetic a file may be than the network's own float32: sums in another order
# are about as far.
ROUNDINGS = 4


def run(session: Any, images: Tensor) -> NDArray[np.float32]:
    """Return the logits [batch, classes] that a file's session gives for images."""
    outputs: list[NDArray[np.float32]] = session.run([OUTPUT], {INPUT: images.cpu().contiguous().numpy()})
    return outputs[0]


def check_parity(session: Any, module: nn.Module, architecture: Architecture) -> dict[str, Any]:
    """Return the `parity` of a file's session with its module on random images that are like normalised ones.

    Where the network magnifies the rounding of float32 so much that its own outputs are farther from those of
    float64 than the tolerance, the file is compared with the latter, and may be as far from them as that.

    Raises:
        kdtool.Error: the file does not give the module's outputs, or the module none to compare with.
    """
    import numpy as np
    import torch
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    spec = architecture.spec
    expected, given, images = [], [], []
    generator = torch.Generator().manual_seed(0)
    for batch in BATCHES:
        images.append(torch.randn(batch, *architecture.input, generator=generator))
        with torch.no_grad():
            expected.append(module(images[-1]).numpy())
        try:
            given.append(run(session, images[-1]))
        except (state.Fail, state.InvalidArgument, state.RuntimeException) as error:
            reason = str(error).splitlines()[0]
            raise Error(f"{spec}: its ONNX file cannot run a batch of {batch}: {reason}") from error
        if not given[-1].shape == expected[-1].shape == (batch, architecture.classes):
            shapes = f"{list(given[-1].shape)}, the network {list(expected[-1].shape)}"
            wanted = f"not [{batch}, {architecture.classes}]; nothing was written"
            raise Error(f"{spec}: for a batch of {batch} its ONNX file gives {shapes}, {wanted}")
    if not all(np.isfinite(outputs).all() for outputs in expected):
        raise Error(f"{spec}: its outputs are not finite; its weights are of no use, nothing was written")
    ours, theirs = np.concatenate(expected), np.concatenate(given)
    found = parity(ours, theirs)
    if found["max_abs"] == 0:
        raise Error(f"{spec}: all its outputs are zero, so there is nothing to compare its file by; train it first")
    if not _alike(found):
        exact = _exact(module, images)
        if exact is not None:
            rounding = parity(exact, ours)["relative"]
            found = parity(exact, theirs, max(TOLERANCE, ROUNDINGS * rounding))
    if not _alike(found):
        apart = f"{found['max_abs_diff']:.3g} away from the network's, which reach {found['max_abs']:.3g}"
        raise Error(f"{spec}: the outputs of its ONNX file are {apart}; nothing was written")
    return {**found, "batches": list(BATCHES)}


def _alike(found: dict[str, Any]) -> bool:
    # Written so that a NaN of the file's fails.
    return bool(found["relative"] <= found["tolerance"] and found["same_argmax"])


def _exact(module: nn.Module, images: Sequence[Tensor]) -> NDArray[np.float64] | None:
    """Return the outputs of all images in float64, or None where the network runs in float32 alone."""
    import numpy as np
    import torch

    double = copy.deepcopy(module).double()
    try:
        with torch.no_grad():
            return np.concatenate([double(batch.double()).numpy() for batch in images])
    except RuntimeError:
        return None


def parity(expected: NDArray[Any], given: NDArray[Any], tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Return how near ``given`` is to ``expected``, both [images, classes].

    ``max_abs_diff`` is max|given - expected|, ``max_abs`` max|expected|, ``relative`` the first over the second, and
    ``same_argmax`` whether every image has the same best class; one whose two best are within the ``tolerance`` (which
    is relative, too) has none.
    """
    import numpy as np

    largest, apart = float(np.abs(expected).max()), float(np.abs(given - expected).max())
    best = np.sort(expected, axis=1)[:, -2:]
    # Of one class alone the two are the same number, and nothing can be told apart.
    clear = best[:, -1] - best[:, 0] > tolerance * largest
    same = expected[clear].argmax(axis=1) == given[clear].argmax(axis=1)
    return {
        "max_abs_diff": apart,
        "max_abs": largest,
        "relative": apart / largest if largest else apart,
        "tolerance": tolerance,
        "same_argmax": bool(same.all()),
    }
