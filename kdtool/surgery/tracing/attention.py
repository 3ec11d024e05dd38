"""Attention in the flow: stand-ins for matrix products and softmax, which keep lost channels apart from the others.

A matrix product sums over channels. If both of its sides lose the same channels, it is replaced by the product over the
channels that stay. If a channel is lost on one side only, the product mixes lost and kept channels: a conflict. The
weights of attention are replaced by uniform ones. Which position attends to which does not matter for the channels, and
the scale in front of the softmax changes with the width of a head.
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
    """Replace matrix products and softmax by versions that keep lost channels apart.

    ``conflict`` is called at a product whose two sides lose different channels. ``seen`` is called at every product,
    with its mean over what stays and the number of channels that it sums over. ``paired`` is False for a network that
    was cut: its batch does not hold two images that differ. A linear layer of ``module`` is also called where the
    network uses its weight without calling it.
    """

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
        """Call the stand-in for a function that has one, and any other function as it is."""
        kwargs = kwargs or {}
        if func is F.linear:
            x, weight, bias = (*args, *(kwargs.get(name) for name in ("input", "weight", "bias")[len(args) :]))
            if id(weight) in self.linear:
                y = self.linear[id(weight)].forward(x)
                return y if bias is None else y + bias
        if func in _PRODUCTS and len(args) == 2 and all(factor.dim() > 2 for factor in args):
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
        """Return the matrix product over the channels that stay on both sides."""
        if not self.paired or a.shape[0] % 2 or a.shape[0] != b.shape[0]:
            y = a @ b
            if not self.paired:
                self.seen(float(y.double().mean()), a.shape[-1])
            return y
        lost_a, lost_b = difference(a), difference(b)
        kept_a, kept_b = (~lost_a).float(), (~lost_b).float()
        y = (a.chunk(2)[0] * kept_a) @ (b.chunk(2)[0] * kept_b)
        # For each entry of the product, how many of its terms are kept on both sides, and how many lost on both.
        kept_terms, lost_terms = kept_a @ kept_b, lost_a.float() @ lost_b.float()
        lost = kept_terms == 0
        if bool(((kept_terms + lost_terms < a.shape[-1]) & ~lost).any()):
            self.conflict()
        self.seen(float(y[~lost].double().mean()), a.shape[-1])
        return _pair(y, lost)

    def weights(self, x: Tensor) -> Tensor | None:
        """Return uniform weights over the last dimension, or None unless the lost entries are whole rows and columns.

        None as well if all entries are lost.
        """
        if not self.paired or x.shape[0] % 2:
            return torch.full_like(x, 1 / x.shape[-1])
        lost = difference(x)
        rows, columns = lost.all(-1, keepdim=True), lost.all(-2, keepdim=True)
        if bool(lost.all()) or not torch.equal(lost, rows | columns):
            return None
        count = (~columns).sum(-1, keepdim=True).clamp_min(1)
        return _pair((1 / count).expand(lost.shape).to(x.dtype), lost)


def alike(mean: float, count: int, other: float, other_count: int) -> bool:
    """Return whether two products have the same mean, apart from a scale by the square root of their widths."""
    scales = (1.0, math.sqrt(count / max(1, other_count)))
    return any(math.isclose(other, mean * scale, rel_tol=1e-3, abs_tol=1e-6) for scale in scales)


def _pair(y: Tensor, lost: Tensor) -> Tensor:
    """Return a batch of two that is ``y`` in both halves, but differs between them where ``lost`` is true."""
    return torch.cat([torch.where(lost, 0.6, y), torch.where(lost, 1.2, y)])
