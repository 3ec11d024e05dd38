"""Context managers that observe the layers of a network or replace their forward while a block runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def patched(module: nn.Module, stand_in: Callable[[str, nn.Module], Callable[..., Any] | None]) -> Iterator[None]:
    """Replace the forward of every layer for which ``stand_in(path, layer)`` returns a function."""
    with contextlib.ExitStack() as stack:
        for path, part in module.named_modules():
            forward = stand_in(path, part)
            if forward is not None:
                stack.enter_context(replaced(part, forward))
        yield


@contextlib.contextmanager
def answering(layer: nn.Module, output: Tensor) -> Iterator[None]:
    """Let a layer return ``output`` for any input."""
    with replaced(layer, lambda *args, **kwargs: output):
        yield


@contextlib.contextmanager
def replaced(layer: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace a layer's forward."""
    own = vars(layer)  # setting an attribute of a module looks through its weights first; this runs in every step
    previous = own.get("forward")
    own["forward"] = forward
    try:
        yield
    finally:
        del own["forward"]
        if previous is not None:
            own["forward"] = previous


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a network in eval mode; afterwards put every module of it back into its previous mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextlib.contextmanager
def hooked(module: nn.Module, note: Callable[[str], Callable[..., None]]) -> Iterator[None]:
    """Register ``note(path)`` as a forward hook of every submodule while the block runs."""
    handles = [part.register_forward_hook(note(path)) for path, part in module.named_modules() if path]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Let PyTorch's attention and transformer layers run one operation after another.

    In eval mode they would run as one fused operator, whose parts no counter and no exporter sees.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
