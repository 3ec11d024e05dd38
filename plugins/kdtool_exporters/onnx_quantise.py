"""Quantise an ONNX file with onnxruntime.quantization, or convert it to half precision.

Static quantisation stores integers for the weights of each output channel and a range for each activation, which
images calibrate (QuantizeLinear and DequantizeLinear around each operation, which onnxruntime fuses). Dynamic
quantisation finds the ranges of activations while it runs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import platform
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool_exporters.onnx_model import INPUT, weighted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PERCENTILE = 99.99
"""The part of an activation's values within its range, in per cent; onnxruntime's 99.999 is nearly all of them."""

CHUNK = 8
"""How many images a calibration runs at once: it keeps all activations of them in memory."""

CPUINFO = Path("/proc/cpuinfo")

DOT_PRODUCTS = {"x86_64": ("avx512_vnni", "avx_vnni", "amx_int8"), "aarch64": ("asimddp",)}
"""By kind of processor, features of which one is needed to add products of 8-bit integers without overflow."""


@dataclass(frozen=True)
class Layer:
    """A node that multiplies by weights."""

    name: str
    operator: str
    weights: int
    """The number of its weights."""


def prepare(source: Path, target: Path) -> list[Layer]:
    """Write a copy of a model that can be quantised, with shapes and a name for each node; return its layers."""
    import onnx
    from onnxruntime.quantization import quant_pre_process

    graph = onnx.load(str(source)).graph
    # torch folds batch-norm into the layer before it, unless something stands between them.
    folded = all(node.op_type != "BatchNormalization" for node in graph.node)
    with _quiet():
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True, skip_optimization=folded)
    model = onnx.load(str(target))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    onnx.save(model, str(target))
    return layers_of(model)


def layers_of(model: Any) -> list[Layer]:
    """Return the layers of a model whose nodes have names."""
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return [Layer(node.name, node.op_type, _product(sizes[weight])) for node, weight in weighted(model)]


def is_transformer(layers: Iterable[Layer]) -> bool:
    """Return whether most weights are in matrix products of sequences; torch writes other linear layers as Gemm."""
    weights = {"MatMul": 0, "Conv": 0}
    for layer in layers:
        weights[layer.operator] = weights.get(layer.operator, 0) + layer.weights
    return weights["MatMul"] > weights["Conv"]


def operators_of(layers: Iterable[Layer]) -> list[str]:
    """Return the operators that static quantisation changes: of a transformer only those with weights."""
    return ["Conv", "Gemm", "MatMul"] if is_transformer(layers) else all_operators()


def calibrated(model: Path, images: Sequence[NDArray[np.float32]], how: str, operators: Sequence[str]) -> Any:
    """Return the range of each activation of a prepared model on ``images``, arrays [batch, channels, height, width].

    ``how`` is ``minmax`` (the least and the largest value), ``percentile`` (all values but 0.01 %) or ``entropy`` (the
    range whose quantised distribution is nearest to the original one, by its Kullback-Leibler divergence).
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, batch: NDArray[np.float32]) -> None:
            self.feeds = iter([{INPUT: batch}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    extra: dict[str, Any] = {"symmetric": False}
    if how == "percentile":
        extra["percentile"] = PERCENTILE
    with _quiet():
        calibrator = create_calibrator(
            model,
            list(operators),
            augmented_model_path=str(model.with_suffix(".calibrate.onnx")),
            calibrate_method=methods[how],
            extra_options=extra,
        )
        for batch in images:
            for start in range(0, len(batch), CHUNK):
                calibrator.collect_data(Reader(batch[start : start + CHUNK]))
        return calibrator.compute_data()


def static(
    model: Path,
    output: Path,
    ranges: Any,
    operators: Sequence[str],
    *,
    skip: Iterable[str] = (),
    only: Iterable[str] = (),
    seven_bits: bool = False,
) -> None:
    """Write a prepared model with 8-bit weights and activations; nodes in ``skip``, or not in ``only``, stay as is.

    Weights are signed and symmetric, one scale for each output channel; activations are unsigned, one scale and zero
    point for each tensor. ``seven_bits`` leaves one bit of the weights unused.
    """
    import onnx
    from onnxruntime.quantization import QDQQuantizer, QuantType

    with _quiet():
        quantizer = QDQQuantizer(
            onnx.load(str(model)),
            True,
            seven_bits,
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            list(only),
            list(skip),
            list(operators),
            {"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(output), False)


def dynamic(
    model: Path, output: Path, *, skip: Iterable[str] = (), only: Iterable[str] = (), seven_bits: bool = False
) -> None:
    """Write a prepared model with 8-bit weights in its matrix products, whose inputs are quantised while it runs.

    Gemm is one too: onnxruntime takes it apart first, and adds ``_MatMul`` to its name.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    chosen, left = ([*names, *(f"{name}_MatMul" for name in names)] for names in ([*only], [*skip]))

    with _quiet():
        quantize_dynamic(
            str(model),
            str(output),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=seven_bits,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=chosen,
            nodes_to_exclude=left,
        )


def half(model: Path, output: Path, *, skip: Iterable[str] = ()) -> None:
    """Write a model in float16; its images and logits stay float32, as do the nodes in ``skip``."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet():
        converted = convert_float_to_float16(onnx.load(str(model)), keep_io_types=True, node_block_list=list(skip))
    onnx.save(converted, str(output))


def all_operators() -> list[str]:
    """Return the operators that static quantisation knows."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QLinearOpsRegistry, *QDQRegistry})


def lacks_dot_product() -> str | None:
    """Return the features of which this processor has none, or None if it has one or the system does not tell.

    Without them the products of 8-bit integers are added in 16 bits, which can overflow.
    """
    wanted = DOT_PRODUCTS.get({"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine()))
    if wanted is None or not CPUINFO.is_file():
        return None
    words = {
        word
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")
        for word in line.partition(":")[2].split()
    }
    return None if not words or words & {*wanted} else ", ".join(wanted)


def _product(sizes: Iterable[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what onnxruntime's tools print, warn and log."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)
