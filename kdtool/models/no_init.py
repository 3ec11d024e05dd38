"""Build a network whose random weights nobody will look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWN = frozenset({Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_, Tensor.exponential_})

# torch.nn.init's own functions, which take the tensor that they fill by its name, and fill it out of the mode's sight.
_INIT = frozenset(
    f"{name}_"
    for name in (
        *("uniform", "normal", "trunc_normal", "xavier_uniform", "xavier_normal"),
        *("kaiming_uniform", "kaiming_normal", "orthogonal", "sparse"),
    )
)

_NUMBERS = frozenset({Tensor.__float__, Tensor.item})

_DERIVED = frozenset({Tensor.erfinv_})


class NoInit(TorchFunctionMode):
    """Leave out random initialisation: tensors that would be drawn in place become zero.

    Zero, not whatever memory held, because torch.nn.init.trunc_normal_ draws until all numbers lie within bounds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call everything but the random functions."""
        drawn = _drawn(func, args, kwargs)
        if drawn is not None:
            with torch.no_grad():
                return drawn.zero_()
        if func in _DERIVED:
            return args[0]
        return func(*args, **(kwargs or {}))


def _drawn(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Tensor | None:
    """Return the tensor that a function fills with random numbers."""
    if func in _DRAWN:
        return args[0]  # type: ignore[no-any-return]
    if getattr(func, "__module__", "") == "torch.nn.init" and func.__name__ in _INIT:
        return args[0] if args else kwargs["tensor"]  # type: ignore[no-any-return]
    return None


class Outline(NoInit):
    """Leave out the memory as well: what would hold random numbers has a shape alone (PyTorch's meta device)."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Allocate on the meta device, and leave what is there as it is."""
        if func is torch.empty:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        if func in _NUMBERS and args[0].is_meta:
            return 1.0
        drawn = _drawn(func, args, kwargs)
        if drawn is not None and drawn.is_meta:
            return drawn
        return super().__torch_function__(func, types, args, kwargs)
