"""Build a network without its random initialisation, for weights that are replaced or never read.

Drawing those weights would only cost time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_RANDOM_METHODS = frozenset({Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_, Tensor.exponential_})

# Functions of torch.nn.init. The mode sees the call of the function, but not the calls inside it.
_INIT_FUNCTIONS = frozenset(
    f"{name}_"
    for name in (
        *("uniform", "normal", "trunc_normal", "xavier_uniform", "xavier_normal"),
        *("kaiming_uniform", "kaiming_normal", "orthogonal", "sparse"),
    )
)

# Reads of a tensor as a Python number, which a meta tensor cannot answer.
_SCALAR_READS = frozenset({Tensor.__float__, Tensor.item})

# A transformation of random numbers, inside trunc_normal_: of zeros it would be wasted work.
_TRANSFORMS = frozenset({Tensor.erfinv_})


class NoInit(TorchFunctionMode):
    """Skip random initialisation: tensors that would be filled with random numbers become zero.

    Zero, not uninitialised memory, because torch.nn.init.trunc_normal_ draws until all numbers lie within bounds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call every function but the random ones."""
        target = _random_target(func, args, kwargs)
        if target is not None:
            with torch.no_grad():
                return target.zero_()
        if func in _TRANSFORMS:
            return args[0]
        return func(*args, **(kwargs or {}))


def _random_target(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Tensor | None:
    """Return the tensor that a call would fill with random numbers, or None if it would fill none."""
    if func in _RANDOM_METHODS:
        return args[0]  # type: ignore[no-any-return]
    if getattr(func, "__module__", "") == "torch.nn.init" and func.__name__ in _INIT_FUNCTIONS:
        return args[0] if args else kwargs["tensor"]  # type: ignore[no-any-return]
    return None


class Outline(NoInit):
    """Skip the memory as well: tensors that would hold random numbers are on PyTorch's meta device, shape only."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Allocate on the meta device, and do not fill meta tensors."""
        if func is torch.empty:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        if func in _SCALAR_READS and args[0].is_meta:
            return 1.0
        target = _random_target(func, args, kwargs)
        if target is not None and target.is_meta:
            return target
        return super().__torch_function__(func, types, args, kwargs)
