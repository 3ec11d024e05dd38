"""Find the layers inside of residual blocks: those whose outputs leave the block only through other layers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.errors import Error
from kdtool.models.architecture import Network
from kdtool.models.hooks import patched
from kdtool.models.layers import CONV_LINEAR, is_depthwise
from kdtool.surgery.depth.stages import stages
from kdtool.surgery.slicing.tensors import heads_of
from kdtool.surgery.tracing.differences import noise, output_shape
from kdtool.surgery.tracing.flow import positive


def inner_layers(network: Network) -> frozenset[str]:
    """Return the paths of the layers inside of residual blocks whose outputs leave the block only through other layers.

    A block adds its output to its input (a dense block concatenates them), so the width of the output has to stay.
    Layers inside of attention are not returned.

    Raises:
        Error: the network has no such layers.
    """
    module, shape = network.module, network.architecture.input
    blocks = {block for stage in stages(module, shape) for block in stage.blocks}
    inner = _inside(module, shape, blocks)
    if not inner:
        raise Error(
            f"{network.architecture.spec}: has no residual blocks with a width of their own inside; "
            "leave out the scope to narrow all layers"
        )
    return frozenset(inner)


def _inside(module: nn.Module, shape: tuple[int, int, int], blocks: set[str]) -> set[str]:
    """Return the layers of blocks whose outputs reach the output of a block only through other layers.

    Each layer's output is replaced by a new leaf of the autograd graph. So a gradient of the blocks' outputs arrives
    only at leaves from which a path to these outputs passes through no other layer.
    """
    # A copy, because some networks store what they compute.
    module = copy.deepcopy(module).cpu().float().eval()
    leaves: dict[str, list[Tensor]] = {}
    outputs: list[Tensor] = []

    def start(path: str, layer: nn.Module) -> Callable[..., Any] | None:
        if not isinstance(layer, CONV_LINEAR) or is_depthwise(layer):
            return None
        forward = layer.forward

        def run(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            calls = leaves.setdefault(path, [])
            y = noise(path, len(calls), output_shape(layer, forward, x.detach(), args, kwargs))
            calls.append(y.requires_grad_())
            return y.clone()  # a clone, because the network may change it in place

        return run

    def note(block: nn.Module, args: Any, output: Any) -> None:
        outputs.extend(tensor for tensor in _tensors(output) if tensor.requires_grad)

    with contextlib.ExitStack() as stack:
        for block in blocks:
            stack.callback(module.get_submodule(block).register_forward_hook(note).remove)
        stack.enter_context(torch.enable_grad())
        with torch.no_grad():
            stack.enter_context(positive(module))
        stack.enter_context(patched(module, start))
        module(noise("", 0, (2, *shape)))
        all_leaves = [leaf for calls in leaves.values() for leaf in calls]
        sums = [output.sum() for output in outputs]
        # Not .backward(), which would write gradients into the parameters.
        gradients = torch.autograd.grad(sums, all_leaves, allow_unused=True) if outputs else []
    reached = {id(leaf) for leaf, gradient in zip(all_leaves, gradients, strict=False) if gradient is not None}
    return {
        path
        for path, calls in leaves.items()
        if _is_in_block(path, blocks) and not any(id(leaf) in reached for leaf in calls) and not _attends(module, path)
    }


def _is_in_block(path: str, blocks: set[str]) -> bool:
    return any(path.startswith(f"{block}.") for block in blocks)


def _attends(module: nn.Module, path: str) -> bool:
    """Return whether a layer is inside of an attention, which a module is if it has a number of heads."""
    names = path.split(".")
    return any(heads_of(module.get_submodule(".".join(names[:count]))) for count in range(len(names)))


def _tensors(output: Any) -> list[Tensor]:
    """Return all tensors of a module's output, which may be nested."""
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else []
    return [tensor for value in values for tensor in _tensors(value)]
