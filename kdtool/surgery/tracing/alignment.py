"""Prove that the channels of a sliced network still are those of the network it was cut from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.models.hooks import patched
from kdtool.models.layers import LAYERS, is_channelwise
from kdtool.surgery.tracing.attention import Contractions, alike
from kdtool.surgery.tracing.differences import noise, restricted, signature
from kdtool.surgery.tracing.flow import Flow, positive


def misaligned(module: nn.Module, shape: tuple[int, int, int], flow: Flow) -> list[str]:
    """Return the layers of a sliced network that are given other channels than those they were cut for.

    The network runs with each layer answering what it answered in `trace`, at the channels it keeps. Then every layer
    must be given what it was given there, at the channels it keeps. Inputs that the trace did not understand
    (behind attention) are not compared.

    Raises:
        RuntimeError: or whatever else the network's own forward raises.
    """
    wrong: list[str] = []
    calls: Counter[str] = Counter()

    def stand_in(path: str, layer: nn.Module) -> Callable[..., Any] | None:
        attention = isinstance(layer, nn.MultiheadAttention) and f"{path}.in_proj_weight" in flow.tensors
        if not isinstance(layer, LAYERS) and not is_channelwise(layer) and not attention:
            return None
        forward = layer.forward
        # Of PyTorch's attention it is the last layer that answers.
        place = f"{path}.out_proj" if attention else path
        compared = attention or path in flow.inputs or not isinstance(layer, LAYERS)

        def run(*args: Any, **kwargs: Any) -> Any:
            answer = flow.answers.get((place, calls[place])) if args else None
            if answer is None:
                return forward(*args, **kwargs)
            calls[place] += 1
            x: Tensor = args[0]
            if answer.inputs is not None and compared:
                given, meant = signature(x, answer.dim), answer.means[answer.inputs]
                if given.shape != meant.shape or not torch.allclose(given, meant, rtol=1e-4, atol=1e-5):
                    wrong.append(path)
            count = answer.shape[0] // 2 if answer.paired else answer.shape[0]
            y = restricted(noise(place, calls[place] - 1, (count, *answer.shape[1:])), answer.rows)
            y = y.index_select(answer.dim, answer.outputs)
            y = torch.cat([y, y]) if answer.paired else y
            return (y, None) if attention or isinstance(layer, nn.RNNBase) else y

        return run

    products: list[tuple[float, int]] = []
    watch = Contractions(module, lambda: None, lambda *one: products.append(one), paired=False)
    image = noise("", 0, (1, *shape))
    with torch.no_grad(), positive(module, flow.cuts), watch, patched(module, stand_in):
        module(torch.cat([image, image]))
    pairs = zip(flow.products, products, strict=False)
    if len(products) != len(flow.products) or not all(alike(*one, *other) for one, other in pairs):
        wrong.append("its attention")
    return wrong
