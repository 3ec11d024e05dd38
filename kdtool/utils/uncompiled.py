"""Functions that torch's compiler leaves alone, called without importing it: that is a second of every command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer
from torch.utils import flop_counter

AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)

_MARK = "__dynamo_disable"
"""Where torch's wrapper keeps what it calls instead, once it has imported the compiler and asked it for that."""


@contextlib.contextmanager
def uncompiled(*wrapped: Callable[..., Any]) -> Iterator[None]:
    """Let functions that are wrapped by ``torch._disable_dynamo`` be called as they are while the block runs.

    Where the compiler is imported already there is nothing to spare, and nothing is changed.
    """
    inner = [function for one in wrapped if (function := getattr(one, "__wrapped__", None)) is not None]
    marked = [] if "torch._dynamo" in sys.modules else [one for one in inner if not hasattr(one, _MARK)]
    for function in marked:
        setattr(function, _MARK, function)
    try:
        yield
    finally:
        for function in marked:
            if getattr(function, _MARK, None) is function:
                delattr(function, _MARK)


def optimizing() -> contextlib._GeneratorContextManager[None]:
    """Return the context, or the decorator, for an optimiser's methods."""
    return uncompiled(Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict)


def with_plain_step(kind: type[AnyOptimizer]) -> type[AnyOptimizer]:
    """Return an optimiser whose step does not import the compiler to break graphs that nobody makes here."""
    step = getattr(kind.step, "__wrapped__", None)
    if step is None:
        return kind

    def plain(self: AnyOptimizer, closure: None = None) -> None:
        with torch.no_grad():
            step(self, closure)

    return type(kind.__name__, (kind,), {"step": plain})


def counting() -> contextlib.AbstractContextManager[None]:
    """Return the context for counting operations."""
    mode = getattr(flop_counter, "_FlopCounterMode", None)
    return uncompiled(*([mode.__torch_dispatch__] if mode else []))
