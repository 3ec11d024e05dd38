"""Watch or replace what the layers of a network do, for as long as a block runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


@contextlib.contextmanager
def patched(module: nn.Module, stand_in: Callable[[str, nn.Module], Callable[..., Any] | None]) -> Iterator[None]:
    """Put stand-ins in the place of the layers' forward, where there are any."""
    replaced = []
    for path, part in module.named_modules():
        forward = stand_in(path, part)
        if forward is not None:
            replaced.append((part, part.__dict__.get("forward")))
            part.forward = forward
    try:
        yield
    finally:
        for part, forward in replaced:
            del part.__dict__["forward"]
            if forward is not None:
                part.forward = forward


@contextlib.contextmanager
def answering(layer: nn.Module, output: Tensor) -> Iterator[None]:
    """Let a layer answer ``output`` whatever it is given."""
    with replaced(layer, lambda *args, **kwargs: output):
        yield


@contextlib.contextmanager
def replaced(layer: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Put another forward in the place of a layer's own."""
    before = layer.__dict__.get("forward")
    layer.forward = forward
    try:
        yield
    finally:
        del layer.__dict__["forward"]
        if before is not None:
            layer.forward = before


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network in eval mode, and every part of it back into the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextlib.contextmanager
def hooked(module: nn.Module, note: Callable[[str], Callable[..., None]]) -> Iterator[None]:
    """Call ``note(path)`` as a forward hook of every module inside while the block runs."""
    handles = [part.register_forward_hook(note(path)) for path, part in module.named_modules() if path]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
