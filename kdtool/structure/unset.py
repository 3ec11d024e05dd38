"""Build a network whose random weights nobody will look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWN = frozenset({Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_, Tensor.exponential_})
_DERIVED = frozenset({Tensor.erfinv_})


class Unset(TorchFunctionMode):
    """Leave out random initialisation: tensors that would be drawn in place become zero.

    Zero, not whatever memory held, because torch.nn.init.trunc_normal_ draws until all numbers lie within bounds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call everything but the random functions."""
        if func in _DRAWN:
            with torch.no_grad():
                return args[0].zero_()
        if func in _DERIVED:
            return args[0]
        return func(*args, **(kwargs or {}))
