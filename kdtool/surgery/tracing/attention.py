"""Attention in the flow: products that sum over channels, and what is made of them, let lost channels pass one by one.

A product of two things that lost the same channels is that of the channels that are left. One in which a channel is
lost on one side alone would mix what stays with what goes. The weights of attention are taken to be uniform: which
image attends to what is no matter of channels, and the scale before them changes with the width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from kdtool.surgery.tracing.differences import difference

_PRODUCTS = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm})

_SOFTMAX = frozenset({torch.softmax, F.softmax, Tensor.softmax})

_NORMALIZE = frozenset({F.normalize})


class Contractions(TorchFunctionMode):
    """Stand-ins for matrix products and softmax. ``conflict`` is called where two sides lose different channels;
    ``paired`` is false when the network was cut and nothing is lost any more; ``seen`` is told of every product: its
    mean over what stays and how many channels it sums over. A linear layer of ``module`` whose weights are used without
    calling it is called all the same."""

    def __init__(
        self, module: nn.Module, conflict: Callable[[], None], seen: Callable[[float, int], None], *, paired: bool
    ) -> None:
        super().__init__()
        self.linear = {id(part.weight): part for part in module.modules() if isinstance(part, nn.Linear)}
        self.conflict = conflict
        self.seen = seen
        self.paired = paired

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call everything else as it is."""
        kwargs = kwargs or {}
        if func is F.linear:
            x, weight, bias = (*args, *(kwargs.get(name) for name in ("input", "weight", "bias")[len(args) :]))
            if id(weight) in self.linear:
                y = self.linear[id(weight)].forward(x)
                return y if bias is None else y + bias
        if func in _PRODUCTS and len(args) == 2 and all(one.dim() > 2 for one in args):
            return self.product(*args)
        if func in _SOFTMAX and args[0].dim() > 2:
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if dim in (-1, args[0].dim() - 1):
                weights = self.weights(args[0])
                return func(*args, **kwargs) if weights is None else weights
        if func in _NORMALIZE and self.paired and args[0].shape[0] % 2 == 0:
            x = args[0]
            lost = difference(x)
            return _pair(func(torch.where(lost, 0, x.chunk(2)[0]), *args[1:], **kwargs), lost)
        if func is F.scaled_dot_product_attention:
            q, k, v = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
            if q.shape[1] != k.shape[1]:
                return func(*args, **kwargs)
            logits = self.product(q, k.transpose(-1, -2))
            weights = self.weights(logits)
            return func(*args, **kwargs) if weights is None else self.product(weights, v)
        return func(*args, **kwargs)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the matrix product of what stays of both."""
        if not self.paired or a.shape[0] % 2 or a.shape[0] != b.shape[0]:
            y = a @ b
            if not self.paired:
                self.seen(float(y.double().mean()), a.shape[-1])
            return y
        lost_a, lost_b = difference(a), difference(b)
        left, right = (~lost_a).float(), (~lost_b).float()
        y = (a.chunk(2)[0] * left) @ (b.chunk(2)[0] * right)
        stay, go = left @ right, lost_a.float() @ lost_b.float()
        lost = stay == 0
        if bool(((stay + go < a.shape[-1]) & ~lost).any()):
            self.conflict()
        self.seen(float(y[~lost].double().mean()), a.shape[-1])
        return _pair(y, lost)

    def weights(self, x: Tensor) -> Tensor | None:
        """Return uniform weights over the last dimension, or None where what is lost of it are not rows and columns."""
        if not self.paired or x.shape[0] % 2:
            return torch.full_like(x, 1 / x.shape[-1])
        lost = difference(x)
        rows, columns = lost.all(-1, keepdim=True), lost.all(-2, keepdim=True)
        if bool(lost.all()) or not torch.equal(lost, rows | columns):
            return None
        count = (~columns).sum(-1, keepdim=True).clamp_min(1)
        return _pair((1 / count).expand(lost.shape).to(x.dtype), lost)


def alike(mean: float, count: int, other: float, other_count: int) -> bool:
    """Whether two products have the same mean, or one that a scale by the root of their widths explains."""
    scales = (1.0, math.sqrt(count / max(1, other_count)))
    return any(math.isclose(other, mean * scale, rel_tol=1e-3, abs_tol=1e-6) for scale in scales)


def _pair(y: Tensor, lost: Tensor) -> Tensor:
    """Return the pair that is ``y`` where nothing is lost and differs where something is."""
    return torch.cat([torch.where(lost, 0.6, y), torch.where(lost, 1.2, y)])
