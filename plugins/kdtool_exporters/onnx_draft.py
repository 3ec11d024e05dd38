"""Write the ONNX file of a network in a tenth of the time, to measure its size and latency before it is trained.

torch's older exporter follows one run of the network. It takes 0.3 s for a ResNet-18, where the other takes 5 s, and
onnxruntime optimises the files of both to the same layers. Nobody keeps these files: they are not compared with the
network, and what the older exporter cannot write is exported as usual.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool_exporters.onnx_images import calibration_images
from kdtool_exporters.onnx_model import INPUT, OUTPUT, frozen, quiet, write
from kdtool_exporters.onnx_once import write_once
from kdtool_exporters.onnx_quantise import (
    Layer,
    calibrated,
    dynamic,
    half,
    is_transformer,
    lacks_dot_product,
    layers_of,
    operators_of,
    prepare,
    static,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network

CALIBRATION_IMAGES = 64
"""Validation images that calibrate a draft of 8 bits."""

RANGE = 4.0
"""The upper end of the range of all activations in a draft that is not calibrated."""

SPREAD = 0.1
"""The standard deviation of what is added to a draft's parameters that a training would have moved apart."""


def write_draft(
    options: Any,
    network: Network,
    output: Path,
    val: Iterable[tuple[Tensor, Tensor]] | None,
    *,
    as_exported: bool = False,
) -> None:
    """Write a draft of a network's file; one of 8 bits is calibrated on ``val``, or has any ranges without it.

    ``options`` is the `Onnx` exporter. With ``as_exported`` torch's newer exporter writes it: that of the older one has
    other nodes, and so up to a tenth more or less bytes if the network is small. An export of a transformer chooses
    between static and dynamic quantisation by accuracy and latency: its draft is the faster of both, and with
    ``as_exported`` the larger.
    """
    from kdtool.models import integer_network, without_quantiser

    in_float = without_quantiser(network)
    if options.int8 and in_float is not network:
        integers = integer_network(network)
        write(frozen(integers.module), network.architecture, output, opset=options.opset, metadata={})
        return
    network = in_float
    with tempfile.TemporaryDirectory(prefix="kdtool-draft-") as scratch:
        lower = options.int8 or options.fp16
        path = Path(scratch) / "float.onnx" if lower else output
        _write(options, network, path, output, keep=val is not None, as_exported=as_exported)
        if not lower:
            return
        model = Path(scratch) / "prepared.onnx"
        whole = options.fp16 or as_exported or val is not None
        layers = (None if whole else name_nodes(path, model)) or prepare(path, model)
        if options.fp16:
            half(model, output)
            return
        images = [] if val is None else calibration_images(val, CALIBRATION_IMAGES, network.architecture.spec)[0]
        operators = operators_of(layers)
        ranges = calibrated(model, list(images), "minmax", operators) if images else any_ranges(model)
        narrow = {"on": True, "off": False}.get(options.reduce_range)
        seven_bits = lacks_dot_product() is not None if narrow is None else narrow
        static(model, output, ranges, operators, seven_bits=seven_bits)
        if is_transformer(layers):
            other = Path(scratch) / "dynamic.onnx"
            dynamic(model, other, seven_bits=seven_bits)
            sizes = [file.stat().st_size for file in (other, output)]
            if options.slower(other, output) < 1 if options.times and not as_exported else sizes[0] > sizes[1]:
                shutil.copy(other, output)


def name_nodes(source: Path, target: Path) -> list[Layer] | None:
    """Do as `prepare` in less time: write a copy that can be quantised, and return its layers.

    None if onnxruntime has to fold batch-norms first, and nothing is written.
    """
    import onnx

    model = onnx.load(str(source))
    if any(node.op_type == "BatchNormalization" for node in model.graph.node):
        return None
    model = onnx.shape_inference.infer_shapes(model)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    onnx.save(model, str(target))
    return layers_of(model)


def any_ranges(model: Path) -> Any:
    """Return one range for all activations: how fast integers are multiplied does not depend on what they stand for."""
    import numpy as np
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    graph = onnx.load(str(model), load_external_data=False).graph
    names = [tensor.name for tensor in graph.input] + [name for node in graph.node for name in node.output]
    ends = np.float32(0), np.float32(RANGE)
    return TensorsData(CalibrationMethod.MinMax, dict.fromkeys(names, ends))


def _write(options: Any, network: Network, path: Path, output: Path, *, keep: bool, as_exported: bool) -> None:
    """Write the float file; unless ``keep``, of weights that are all different, as those of a trained network."""
    import torch

    from kdtool import Network as Whole
    from kdtool.models import plain_attention

    module = frozen(network.module) if keep else _as_trained(network.module)
    batch = {0: "batch"}
    failures = (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError)
    if not as_exported:
        with contextlib.suppress(*failures), quiet(), _unlogged(), plain_attention():
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
            return
    whole = Whole(network.architecture, module)
    write_once(whole, path, opset=options.opset, metadata={}, output=output, check=False)


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the older exporter from printing the graph of what it cannot write, which it does past Python's streams."""
    import torch

    log: Any = getattr(torch._C, "_jit_onnx_log", None)  # releases without it print nothing
    torch._C._jit_onnx_log = lambda *parts: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log


def _as_trained(module: nn.Module) -> nn.Module:
    """Return a frozen copy with noise on its offsets, and on every parameter whose values are all equal.

    Fresh weights run otherwise than trained ones. Layers without offsets are others to onnxruntime. Layers whose
    weights are all zero (those in front of a batch-norm that begins with zero, at the end of a residual block) share
    one tensor in the file, and onnxruntime then quantises it anew in each run: that took up to three times as long.
    """
    import torch

    noisy = frozen(module)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in noisy.named_parameters():
        if name.endswith("bias") or (tensor.numel() and tensor.min() == tensor.max()):
            tensor.add_(SPREAD * torch.randn(tensor.shape, generator=generator))
    return noisy
