"""Call functions of torch that are wrapped by ``torch._disable_dynamo`` without importing torch's compiler.

The wrapper imports the compiler at the first call, which takes about a second in every command that trains.
"""

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
"""The attribute where torch's wrapper stores the function that it calls, after it has imported the compiler."""


@contextlib.contextmanager
def uncompiled(*wrapped: Callable[..., Any]) -> Iterator[None]:
    """Call the functions behind wrappers of ``torch._disable_dynamo`` directly while the block runs.

    Nothing is changed if the compiler is already imported, since no time can be saved then.
    """
    inner = [function for wrapper in wrapped if (function := getattr(wrapper, "__wrapped__", None)) is not None]
    marked = [] if "torch._dynamo" in sys.modules else [function for function in inner if not hasattr(function, _MARK)]
    for function in marked:
        setattr(function, _MARK, function)
    try:
        yield
    finally:
        for function in marked:
            if getattr(function, _MARK, None) is function:
                delattr(function, _MARK)


def optimizing() -> contextlib._GeneratorContextManager[None]:
    """Return `uncompiled` for the methods of optimisers; it is a context manager and a decorator."""
    return uncompiled(Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict)


def with_plain_step(kind: type[AnyOptimizer]) -> type[AnyOptimizer]:
    """Return an optimiser class whose ``step`` does not import the compiler."""
    step = getattr(kind.step, "__wrapped__", None)
    if step is None:
        return kind

    def plain(self: AnyOptimizer, closure: None = None) -> None:
        with torch.no_grad():
            step(self, closure)

    return type(kind.__name__, (kind,), {"step": plain})


def counting() -> contextlib.AbstractContextManager[None]:
    """Return `uncompiled` for torch's counter of operations (``torch.utils.flop_counter``)."""
    mode = getattr(flop_counter, "_FlopCounterMode", None)
    return uncompiled(*([mode.__torch_dispatch__] if mode else []))
