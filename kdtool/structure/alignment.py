"""Prove that the channels of a sliced network still are those of the network it was cut from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.structure.channels import noise, restricted, signature
from kdtool.structure.flow import MIXING, Flow, is_channelwise, patched, positive


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
        if not isinstance(layer, MIXING) and not is_channelwise(layer):
            return None
        forward = layer.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            answer = flow.answers.get((path, calls[path])) if args else None
            if answer is None:
                return forward(*args, **kwargs)
            calls[path] += 1
            x: Tensor = args[0]
            if answer.inputs is not None and (path in flow.inputs or not isinstance(layer, MIXING)):
                given, meant = signature(x, answer.dim), answer.means[answer.inputs]
                if given.shape != meant.shape or not torch.allclose(given, meant, rtol=1e-4, atol=1e-5):
                    wrong.append(path)
            count = answer.shape[0] // 2 if answer.paired else answer.shape[0]
            y = restricted(noise(path, calls[path] - 1, (count, *answer.shape[1:])), answer.rows)
            y = y.index_select(answer.dim, answer.outputs)
            return torch.cat([y, y]) if answer.paired else y

        return run

    image = noise("", 0, (1, *shape))
    with torch.no_grad(), positive(module), patched(module, stand_in):
        module(torch.cat([image, image]))
    return wrong
