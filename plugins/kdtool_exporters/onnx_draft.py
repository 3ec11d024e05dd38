"""Write the ONNX file of a network in a tenth of the time, to measure its size and latency before it is trained.

torch's older exporter follows one run of the network. It takes 0.3 s for a ResNet-18, where the other takes 5 s, and
onnxruntime optimises the files of both to the same layers. Nobody keeps these files: they are not compared with the
network, and what the older exporter cannot write is exported as usual.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool_exporters.onnx_images import calibration_images
from kdtool_exporters.onnx_model import INPUT, OUTPUT, frozen
from kdtool_exporters.onnx_once import write_once
from kdtool_exporters.onnx_quantise import all_operators, calibrated, half, lacks_dot_product, prepare, static

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network

CALIBRATION_IMAGES = 64
"""Validation images that calibrate a draft of 8 bits."""

SPREAD = 0.1
"""The standard deviation of what is added to the offsets of a draft's layers."""


def write_draft(options: Any, network: Network, output: Path, val: Iterable[tuple[Tensor, Tensor]] | None) -> None:
    """Write a draft of a network's file; one of 8 bits is calibrated on ``val``, or on noise without it.

    ``options`` is the `Onnx` exporter.
    """
    with tempfile.TemporaryDirectory(prefix="kdtool-draft-") as scratch:
        lower = options.int8 or options.fp16
        path = Path(scratch) / "float.onnx" if lower else output
        _write(options, network, path, output, keep=val is not None)
        if not lower:
            return
        model = Path(scratch) / "prepared.onnx"
        prepare(path, model)
        if options.fp16:
            half(model, output)
            return
        ranges = calibrated(model, _images(network, val), "minmax", all_operators())
        narrow = {"on": True, "off": False}.get(options.reduce_range)
        seven_bits = lacks_dot_product() is not None if narrow is None else narrow
        static(model, output, ranges, all_operators(), seven_bits=seven_bits)


def _images(network: Network, val: Iterable[tuple[Tensor, Tensor]] | None) -> list[Any]:
    import torch

    if val is not None:
        return list(calibration_images(val, CALIBRATION_IMAGES, network.architecture.spec)[0])
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, *network.architecture.input, generator=generator).numpy()]


def _write(options: Any, network: Network, path: Path, output: Path, *, keep: bool) -> None:
    """Write the float file; unless ``keep``, with offsets as a trained network has them."""
    import torch

    module = frozen(network.module) if keep else _with_offsets(network.module)
    batch = {0: "batch"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(2, *network.architecture.input),),
                str(path),
                dynamo=False,
                opset_version=options.opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: batch, OUTPUT: batch},
            )
    except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError):
        from kdtool import Network as Whole

        whole = Whole(network.architecture, module)
        write_once(whole, path, opset=options.opset, metadata={}, output=output, check=False)


def _with_offsets(module: nn.Module) -> nn.Module:
    """Return a frozen copy with noise on its offsets: without them, as in fresh batch-norms, layers run otherwise."""
    import torch

    noisy = frozen(copy.deepcopy(module))
    generator = torch.Generator().manual_seed(0)
    for name, tensor in noisy.named_parameters():
        if name.endswith("bias"):
            tensor.add_(SPREAD * torch.randn(tensor.shape, generator=generator))
    return noisy
