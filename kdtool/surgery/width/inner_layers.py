"""Which layers are inside of a residual block: those whose outputs do not reach what leaves it."""

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
    """Return the paths of the layers inside of residual blocks whose outputs another layer of the block reads.

    What a block puts out, it adds to what it was given (or, where it is dense, puts beside it): the width of that
    has to stay. Layers in attention stay as they are.

    Raises:
        Error: the network has no such layers.
    """
    module, shape = network.module, network.architecture.input
    blocks = {block for stage in stages(module, shape) for block in stage.blocks}
    inner = _inside(module, shape, blocks)
    if not inner:
        raise Error(
            f"{network.architecture.spec}: has no residual blocks with a width of their own inside; "
            "leave out the scope to narrow all of it"
        )
    return frozenset(inner)


def _inside(module: nn.Module, shape: tuple[int, int, int], blocks: set[str]) -> set[str]:
    """Return the layers of blocks from whose outputs no gradient comes when each layer starts a graph of its own."""
    # A copy: some networks keep what they computed.
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
            return y.clone()  # which the network may change in place

        return run

    def note(block: nn.Module, args: Any, output: Any) -> None:
        outputs.extend(one for one in _tensors(output) if one.requires_grad)

    with contextlib.ExitStack() as stack:
        for block in blocks:
            stack.callback(module.get_submodule(block).register_forward_hook(note).remove)
        stack.enter_context(torch.enable_grad())
        with torch.no_grad():
            stack.enter_context(positive(module))
        stack.enter_context(patched(module, start))
        module(noise("", 0, (2, *shape)))
        every = [leaf for calls in leaves.values() for leaf in calls]
        # Not .backward(): the parameters' gradients are none of its business.
        found = torch.autograd.grad([one.sum() for one in outputs], every, allow_unused=True) if outputs else []
    reached = {id(leaf) for leaf, gradient in zip(every, found, strict=False) if gradient is not None}
    return {
        path
        for path, calls in leaves.items()
        if _block_around(path, blocks) and not any(id(leaf) in reached for leaf in calls) and not _attends(module, path)
    }


def _block_around(path: str, blocks: set[str]) -> bool:
    return any(path.startswith(f"{block}.") for block in blocks)


def _attends(module: nn.Module, path: str) -> bool:
    names = path.split(".")
    return any(heads_of(module.get_submodule(".".join(names[:count]))) for count in range(len(names)))


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else []
    return [tensor for one in values for tensor in _tensors(one)]
