"""Write the 8-bit file of a network that was trained in 8 bits, and check that it gives the network's outputs.

Its ranges are those of the training: nothing is calibrated or chosen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool import Error, UsageError
from kdtool_exporters.onnx_choice import within
from kdtool_exporters.onnx_images import first_images
from kdtool_exporters.onnx_model import frozen, write
from kdtool_exporters.onnx_parity import accuracy
from kdtool_exporters.onnx_quantise import lacks_dot_product
from kdtool_exporters.onnx_session import open_file, run, run_all

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from kdtool import Network

IMAGES = 256
"""How many validation images, or random ones without them, compare the file with the network."""

MEAN_TOLERANCE, TIE = 0.02, 0.05
"""How far the logits of both may be apart, as parts of the largest logit: in the mean, and where the best class is not
clear. A value half-way between two integers may become either, and each moves what follows by one step."""

CHOICES = ("calibration", "calibration_images", "float_ends", "reduce_range", "only", "skip")
"""The options of a file that is quantised after its training."""


def check_trained(options: Any, spec: str) -> None:
    """Check that no option would quantise a network anew that was trained in 8 bits.

    Raises:
        kdtool.UsageError: one does.
    """
    for info in options.describe():
        if info.name in CHOICES and getattr(options, info.name) != info.default:
            raise UsageError(
                f"{info.flag}: {spec} was trained in 8 bits, and its file has the ranges of that training; leave it "
                "out, or train with other --quantize options"
            )


def trained_file(
    options: Any, network: Network, float_path: Path, output: Path, val: Iterable[tuple[Tensor, Tensor]] | None
) -> dict[str, Any]:
    """Write the 8-bit file ``output`` of a rounding network, and return how it was made, as plain data.

    ``options`` is the `Onnx` exporter, ``float_path`` the file of the same weights in float, ``val`` are batches of
    validation images.

    Raises:
        kdtool.Error: the file does not give the network's outputs, or loses more than ``max_drop`` allows.
    """
    from kdtool.models import integer_network, quantisation_of

    spec = network.architecture.spec
    if val is None and options.max_drop is not None:
        raise Error(
            f"{spec}: --max-drop is measured on validation images, and there is no validation split; name a data set "
            "with --data"
        )
    write(frozen(integer_network(network).module), network.architecture, output, opset=options.opset, metadata={})
    made: dict[str, Any] = {**quantisation_of(network), "way": "trained"}
    lacking = lacks_dot_product()
    if lacking:
        logging.getLogger("kdtool").warning(
            "%s: this processor has none of %s, so that sums of 8-bit products may overflow here; the file is for "
            "another device, and is not compared with the network",
            spec,
            lacking,
        )
    else:
        made["agreement"] = _agreement(network, output, val)
    if val is not None:
        before, after = (accuracy(partial(run, open_file(file, spec)), val) for file in (float_path, output))
        if before is not None and after is not None:
            drop = before["accuracy"] - after["accuracy"]
            made |= {"val_images": after["images"], "val_accuracy": after["accuracy"]}
            made |= {"val_accuracy_float": before["accuracy"], "drop": drop}
            if options.max_drop is not None and not within(drop, options.max_drop.fraction):
                raise Error(
                    f"{spec}: loses {drop:.2%} of the validation images in 8 bits; --max-drop allows "
                    f"{options.max_drop.fraction:.2%}: train it longer, or export it in float; nothing was written"
                )
    return made


def _agreement(network: Network, file: Path, val: Iterable[tuple[Tensor, Tensor]] | None) -> dict[str, Any]:
    """Return how far the logits of the file are from those of the rounding network.

    Raises:
        kdtool.Error: they are too far, or a clear best class differs.
    """
    import numpy as np
    import torch

    generator = torch.Generator().manual_seed(0)
    images = [] if val is None else first_images(val, IMAGES)
    images = images or [torch.randn(IMAGES, *network.architecture.input, generator=generator)]
    module = frozen(network.module)
    with torch.no_grad():
        expected = np.concatenate([module(batch).numpy() for batch in images])
    agreement = compared(expected, run_all(open_file(file, network.architecture.spec), images))
    if agreement["mean"] > MEAN_TOLERANCE or agreement["other_classes"]:
        raise Error(
            f"{network.architecture.spec}: the outputs of its 8-bit file are not those of its training: they differ by "
            f"{agreement['mean']:.2%} of the largest in the mean, and {agreement['other_classes']} clear classes of "
            f"{len(expected)} are others; export it in float; nothing was written"
        )
    return agreement


def compared(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> dict[str, Any]:
    """Return ``mean`` and ``largest`` of |actual - expected| over the largest |expected|; both [images, classes].

    ``other_classes`` counts the images whose best class differs, without those whose two best logits in ``expected``
    are closer than `TIE` of the largest.
    """
    import numpy as np

    size = float(np.abs(expected).max()) or 1.0
    difference = np.abs(actual - expected) / size
    best = np.sort(expected, axis=1)[:, -2:]
    clear = best[:, -1] - best[:, 0] > TIE * size
    others = expected[clear].argmax(axis=1) != actual[clear].argmax(axis=1)
    return {
        "mean": float(difference.mean()),
        "largest": float(difference.max()),
        "other_classes": int(others.sum()),
        "images": len(expected),
    }
