"""The accelerated proximal gradient step for penalised gates (Parikh and Boyd, Proximal Algorithms, 2014, 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def shrink(z: Tensor, threshold: Tensor | float) -> Tensor:
    """Return the proximal operator of g -> threshold * |g| over g >= 0: max(z - threshold, 0)."""
    return (z - threshold).clamp_min(0)


def gradient_step(gradient: Tensor, rate: float, limit: float) -> Tensor:
    """Return rate * gradient, with each element moved by at most ``limit`` (0: no limit).

    If a teacher has learned nothing, the loss and with it the penalties are so small that the rate, which makes up for
    them, takes a gate far outside in one step.
    """
    step = rate * gradient
    return step.clamp(-limit, limit) if limit else step


def momentum(k: int) -> float:
    """Return mu_k = (k - 2) / (k + 1), k = 2, 3, ..."""
    return (k - 2) / (k + 1)


def ahead(gates: Tensor, before: Tensor, k: int) -> Tensor:
    """Return y_(k+1) = max(x_k + mu_(k+1) * (x_k - x_(k-1)), 0), with x_k = ``gates`` and x_(k-1) = ``before``.

    The next gradient is taken at this point: x_(k+1) = shrink(y_(k+1) - rate * gradient, threshold), with y_1 = x_0 and
    k counted from 1.
    """
    return (gates + momentum(k + 1) * (gates - before)).clamp_min(0)


def closing_threshold(steps: int) -> float:
    """Return the threshold at which a gate of 1 without a gradient closes after ``steps`` steps.

    Without a gradient the k-th step approaches -threshold * k / 4 (insert v_k = -a * k into v_k = mu_k * v_(k-1) -
    threshold), so that after k steps the gate has decreased by threshold * k**2 / 8.
    """
    return 8 / max(steps, 1) ** 2
