"""Check that the layers of a cut network receive the channels that they were cut for."""

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
    """Return the layers of a cut network that receive other channels than those they were cut for.

    ``shape`` is [channels, height, width] of an image. The network runs once, and each layer returns what it returned
    in `trace`, reduced to the channels it keeps. Then each layer must receive what it received in the trace, reduced
    likewise. Inputs that the trace did not understand, such as those behind some kinds of attention, are not compared.

    Raises:
        RuntimeError: or any other exception that the network's own forward raises.
    """
    wrong: list[str] = []
    calls: Counter[str] = Counter()

    def stand_in(path: str, layer: nn.Module) -> Callable[..., Any] | None:
        attention = isinstance(layer, nn.MultiheadAttention) and f"{path}.in_proj_weight" in flow.tensors
        if not isinstance(layer, LAYERS) and not is_channelwise(layer) and not attention:
            return None
        forward = layer.forward
        # The trace stores the output of PyTorch's attention under the path of the attention's last layer.
        traced_path = f"{path}.out_proj" if attention else path
        compared = attention or path in flow.inputs or not isinstance(layer, LAYERS)

        def run(*args: Any, **kwargs: Any) -> Any:
            answer = flow.answers.get((traced_path, calls[traced_path])) if args else None
            if answer is None:
                return forward(*args, **kwargs)
            calls[traced_path] += 1
            x: Tensor = args[0]
            if answer.inputs is not None and compared:
                means, expected = signature(x, answer.dim), answer.means[answer.inputs]
                if means.shape != expected.shape or not torch.allclose(means, expected, rtol=1e-4, atol=1e-5):
                    wrong.append(path)
            count = answer.shape[0] // 2 if answer.paired else answer.shape[0]
            y = restricted(noise(traced_path, calls[traced_path] - 1, (count, *answer.shape[1:])), answer.rows)
            y = y.index_select(answer.dim, answer.outputs)
            y = torch.cat([y, y]) if answer.paired else y
            return (y, None) if attention or isinstance(layer, nn.RNNBase) else y

        return run

    products: list[tuple[float, int]] = []
    watch = Contractions(module, lambda: None, lambda *product: products.append(product), paired=False)
    image = noise("", 0, (1, *shape))
    with torch.no_grad(), positive(module, flow.cuts), watch, patched(module, stand_in):
        module(torch.cat([image, image]))
    pairs = zip(flow.products, products, strict=False)
    if len(products) != len(flow.products) or not all(alike(*traced, *product) for traced, product in pairs):
        wrong.append("its attention")
    return wrong
