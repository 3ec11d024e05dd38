"""Convert a network to an ONNX model that holds no paths of the machine it was made on."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool import Error
from kdtool.errors import first_line
from kdtool.exporting import OPERATORS, operators
from kdtool_exporters.onnx_structure import structure

if TYPE_CHECKING:
    from torch import nn

    from kdtool import Architecture

INPUT, OUTPUT = "images", "logits"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators whose second input may be the weights of a layer."""
SCOPES = "pkg.torch.onnx.name_scopes"
ONE_FILE_BYTES = 1_900_000_000
"""A protobuf message is limited to 2 GiB; larger weights go into a second file."""


def frozen(module: nn.Module, *, fused: bool = False) -> nn.Module:
    """Return a copy on the CPU, in float32 and eval mode, whose parameters need no gradients.

    Without ``fused`` the attention of timm's layers is made of products and a softmax, not of one operator.
    """
    import torch

    clone = copy.deepcopy(module).to(device="cpu", dtype=torch.float32)
    for part in clone.modules():
        # torch.onnx supports fused attention only in four dimensions; timm's layers also have an unfused form.
        if not fused and vars(part).get("fused_attn") is True:
            vars(part)["fused_attn"] = False
    # torch.onnx does not export a pruned BEiT or MaxViT whose parameters need gradients.
    return clone.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def write(
    module: nn.Module,
    architecture: Architecture,
    path: Path,
    *,
    opset: int,
    metadata: Mapping[str, str],
    one_file_bytes: int = ONE_FILE_BYTES,
) -> None:
    """Write a `frozen` module as ``path``; weights of ``one_file_bytes`` or more go to ``path``.data.

    Raises:
        kdtool.Error: torch cannot export the network, or not in this opset, or the exported file is invalid.
    """
    import onnx

    program = _traced(module, architecture, opset)
    if sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers())) < one_file_bytes:
        model = program.model_proto
    else:
        program.save(str(path), external_data=True)
        model = onnx.load(str(path), load_external_data=False)
    actual = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if actual != opset:
        raise Error(f"--opset {opset}: torch.onnx exports {architecture.spec} in opset {actual}; use --opset {actual}")
    name_layers(model)
    scrub(model)
    _forget_shapes_of_weights(model.graph)
    onnx.helper.set_model_props(model, dict(metadata))
    path.write_bytes(model.SerializeToString())
    try:
        # By its path: the file with its weights may be larger than a protobuf message.
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Error(f"{architecture.spec}: torch.onnx made an invalid ONNX file: {first_line(error)}") from error


def _traced(module: nn.Module, architecture: Architecture, opset: int) -> Any:
    """Return torch's ONNX program of the module, for any batch size."""
    import torch

    with quiet() as printed:
        try:
            # Two images: the exporter treats a dimension of 1 as fixed.
            return torch.onnx.export(
                module,
                (torch.zeros(2, *architecture.input),),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: "batch"},),
            )
        except torch.onnx.OnnxExporterError as error:
            error.add_note(printed.getvalue())
            cause = error.__cause__
            line = f"{type(cause).__name__}: {first_line(cause)}" if cause else first_line(error)
            raise Error(f"{architecture.spec}: torch.onnx {torch.__version__} cannot export it: {line}") from error


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Suppress what the exporter prints, warns and logs; yield a buffer with what it printed."""
    printed, level = io.StringIO(), logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield printed
        finally:
            logging.disable(level)


def set_metadata(source: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Write a copy of a model that tells ``metadata`` and its structure alone; weights in a second file stay there."""
    import onnx

    model = onnx.load(str(source), load_external_data=False)
    scrub(model)
    told = {"kdtool.structure": structure(model), OPERATORS: operators(node.op_type for node in model.graph.node)}
    onnx.helper.set_model_props(model, {**metadata, **told})
    target.write_bytes(model.SerializeToString())


def structure_of(path: Path) -> str:
    """Return what `set_metadata` writes of a file's structure."""
    import onnx

    return structure(onnx.load(str(path), load_external_data=False))


def weighted(model: Any) -> list[tuple[Any, str]]:
    """Return the nodes of a model that multiply by weights, in their order, each with the name of its weights."""
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in WEIGHTED and len(node.input) > 1]
    return [(node, node.input[1]) for node in nodes if node.input[1] in constants]


def name_layers(model: Any) -> None:
    """Give each node that multiplies by weights the path of its module, such as ``layer1.0.conv1``.

    torch names such a weight as the network does, or numbers it if it was transposed; then the node's metadata tell
    the module. The name is that by which a layer is left out of quantisation.
    """
    taken = {node.name for node in model.graph.node}
    for node, weight in weighted(model):
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get(SCOPES, "")
        try:
            path = [str(scope) for scope in ast.literal_eval(scopes or "[]")][-2:-1]
        except (SyntaxError, ValueError):
            path = []
        name = weight.removesuffix(".weight") if weight.endswith(".weight") else (path or [node.name])[0]
        if name and name not in taken:
            taken.add(name)
            node.name = name


def _forget_shapes_of_weights(graph: Any) -> None:
    """Remove the shapes of weights from ``value_info``, since they tell their own.

    A program that changes a weight, such as the dynamic quantizer of onnxruntime, which transposes it, leaves the shape
    behind and then refuses the file.
    """
    weights = {tensor.name for tensor in graph.initializer}
    rest = [value for value in graph.value_info if value.name not in weights]
    del graph.value_info[:]
    graph.value_info.extend(rest)


def scrub(message: Any) -> None:
    """Clear every ``metadata_props`` and ``doc_string`` in an ONNX message: torch writes this machine's paths there."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            # A single message, or a sequence of messages.
            for part in [value] if hasattr(value, "ListFields") else value:
                scrub(part)
