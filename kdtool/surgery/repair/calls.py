"""Which layers and batch-norms a network calls, in which order, and what lies between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdtool.models.hooks import patched
from kdtool.models.layers import CONV_LINEAR
from kdtool.surgery.repair.products import rows_of


@dataclass
class Calls:
    """The calls of convolutions, linear layers and batch-norms, by path."""

    count: Counter[str] = field(default_factory=Counter)
    """How often each is called, in the order of the first calls."""
    positions: dict[str, int] = field(default_factory=dict)
    """At how many places a layer has outputs, for each image."""
    before_norm: set[str] = field(default_factory=set)
    """The layers whose outputs a batch-norm receives."""

    @classmethod
    @torch.no_grad()
    def of(cls, module: nn.Module, images: Tensor) -> Calls:
        """Return the calls of a network that runs on images [images, channels, height, width]."""
        calls = cls()
        outputs: dict[int, tuple[str, Tensor]] = {}

        def note(path: str, part: nn.Module) -> Callable[..., Any] | None:
            forward = part.forward
            if not isinstance(part, (*CONV_LINEAR, _BatchNorm)):
                return None

            def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
                calls.count[path] += 1
                y = forward(x, *args, **kwargs)
                if not isinstance(part, _BatchNorm):
                    outputs[id(y)] = path, y  # keeps the tensor alive, so that no other tensor gets its id
                    calls.positions[path] = -(-len(rows_of(y, part)) // len(images))
                elif id(x) in outputs:
                    calls.before_norm.add(outputs[id(x)][0])
                return y

            return run

        with patched(module, note):
            module(images)
        return calls
