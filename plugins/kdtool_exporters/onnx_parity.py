"""Check that an exported file gives its network's outputs, and measure its accuracy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from kdtool import Error
from kdtool.errors import first_line
from kdtool_exporters.onnx_session import run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from kdtool import Architecture

BATCHES = (1, 3)
TOLERANCE = 1e-4
# The error of a file against float64 may be this many times that of the network's own float32 outputs: sums in
# another order have errors of about the same size.
ROUNDINGS = 4


def check_parity(session: Any, module: nn.Module, architecture: Architecture) -> dict[str, Any]:
    """Return the `parity` between an ONNX file's session and its module, see `check_outputs`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    failures = (state.Fail, state.InvalidArgument, state.RuntimeException)
    return check_outputs(lambda images: run(session, images), module, architecture, "ONNX file", failures)


def check_outputs(
    call: Callable[[Tensor], NDArray[Any]],
    module: nn.Module,
    architecture: Architecture,
    what: str,
    failures: tuple[type[Exception], ...] = (RuntimeError, ValueError),
) -> dict[str, Any]:
    """Return the `parity` between a file and its module, on random images distributed like normalised ones.

    ``call`` runs the file: images [batch, channels, height, width] to logits [batch, classes]; ``failures`` are the
    errors of its runtime. ``what`` names the file in a message, such as ``ONNX file``. A network can amplify the
    rounding of float32 so much that its own float32 and float64 outputs differ by more than the tolerance. Therefore a
    file that fails is compared with the float64 outputs too; its tolerance there is ``ROUNDINGS`` times the error of
    the network's float32 outputs, but at least ``TOLERANCE``.

    Raises:
        kdtool.Error: the file does not give the module's outputs, or these are not finite or all zero, which allows no
            comparison.
    """
    import numpy as np
    import torch

    spec = architecture.spec
    expected, actual, images = [], [], []
    generator = torch.Generator().manual_seed(0)
    for batch in BATCHES:
        images.append(torch.randn(batch, *architecture.input, generator=generator))
        with torch.no_grad():
            expected.append(module(images[-1]).numpy())
        try:
            actual.append(call(images[-1]))
        except failures as error:
            raise Error(f"{spec}: its {what} cannot run a batch of {batch}: {first_line(error)}") from error
        if not actual[-1].shape == expected[-1].shape == (batch, architecture.classes):
            shapes = f"{list(actual[-1].shape)}, the network {list(expected[-1].shape)}"
            wanted = f"not [{batch}, {architecture.classes}]; nothing was written"
            raise Error(f"{spec}: for a batch of {batch} its {what} gives {shapes}, {wanted}")
    if not all(np.isfinite(outputs).all() for outputs in expected):
        raise Error(f"{spec}: its outputs are not finite; check its weights; nothing was written")
    network_outputs, file_outputs = np.concatenate(expected), np.concatenate(actual)
    result = parity(network_outputs, file_outputs)
    if result["max_abs"] == 0:
        raise Error(f"{spec}: all its outputs are zero, so its file cannot be compared with it; train it first")
    if not _within_tolerance(result):
        exact = _float64_outputs(module, images)
        if exact is not None:
            rounding = parity(exact, network_outputs)["relative"]
            result = parity(exact, file_outputs, max(TOLERANCE, ROUNDINGS * rounding))
    if not _within_tolerance(result):
        difference = (
            f"differ by {result['max_abs_diff']:.3g} from the network's, whose maximum is {result['max_abs']:.3g}"
        )
        raise Error(f"{spec}: the outputs of its {what} {difference}; nothing was written")
    return {**result, "batches": list(BATCHES)}


def _within_tolerance(result: dict[str, Any]) -> bool:
    # `<=` and not the negation of `>`, so that NaN in the file's outputs fails.
    return bool(result["relative"] <= result["tolerance"] and result["same_argmax"])


def _float64_outputs(module: nn.Module, images: Sequence[Tensor]) -> NDArray[np.float64] | None:
    """Return the outputs for all images in float64, or None if the network runs only in float32."""
    import numpy as np
    import torch

    double = copy.deepcopy(module).double()
    try:
        with torch.no_grad():
            return np.concatenate([double(batch.double()).numpy() for batch in images])
    except RuntimeError:
        return None


def parity(expected: NDArray[Any], actual: NDArray[Any], tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Return how much ``actual`` differs from ``expected``, both [images, classes].

    ``max_abs_diff`` is max|actual - expected|, ``max_abs`` is max|expected|, ``relative`` the first over the second.
    ``same_argmax`` says whether every image has the same best class. Images whose two highest logits differ by at most
    ``tolerance`` * max|expected| do not count: their best class is not clear.
    """
    import numpy as np

    largest, difference = float(np.abs(expected).max()), float(np.abs(actual - expected).max())
    best = np.sort(expected, axis=1)[:, -2:]
    # With a single class, ``best`` has one column: the difference is 0 and no image counts.
    clear = best[:, -1] - best[:, 0] > tolerance * largest
    same = expected[clear].argmax(axis=1) == actual[clear].argmax(axis=1)
    return {
        "max_abs_diff": difference,
        "max_abs": largest,
        "relative": difference / largest if largest else difference,
        "tolerance": tolerance,
        "same_argmax": bool(same.all()),
    }


def accuracy(
    call: Callable[[Tensor], NDArray[Any]], test: Iterable[tuple[Tensor, Tensor]] | None
) -> dict[str, Any] | None:
    """Return the accuracy of a file itself on the batches of the test split, or None if there are none.

    ``call`` runs the file, as in `check_outputs`.
    """
    correct = images = 0
    for batch, labels in test or ():
        correct += int((call(batch.cpu()).argmax(axis=1) == labels.cpu().numpy()).sum())
        images += len(labels)
    if images == 0:
        return None
    return {"split": "test", "accuracy": correct / images, "error": 1 - correct / images, "images": images}
