"""What a few numbers say of many: intervals of fractions and means, calibration, and a test of two classifiers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95

EXACT_BELOW = 25
"""With fewer discordant pairs chi-square is too rough."""


def wilson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of a fraction (Wilson, 1927); it holds its level near 0 and 1 too."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # Rounding may leave the interval of 0 or of all just outside its bound.
    return max(0.0, (centre - half) / (1 + z * z / trials)), min(1.0, (centre + half) / (1 + z * z / trials))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float] | None:
    """Return the mean and its interval by Student's t; None for fewer than two values, which say nothing of spread."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    mean = fmean(values)
    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def mcnemar(only_first: int, only_second: int) -> dict[str, Any]:
    """Test whether two classifiers err equally often on the same images (McNemar, 1947).

    ``only_first`` and ``only_second`` count the images that only one of them has right. Below 25 of them the test is
    exact (binomial, two-sided), else chi-square with Edwards' continuity correction.

    Returns:
        ``p``, ``test`` (``exact`` or ``chi-square``) and ``statistic`` (None for the exact test).
    """
    discordant = only_first + only_second
    if discordant < EXACT_BELOW:
        tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1))
        return {"p": min(1.0, 2 * tail / 2**discordant), "test": "exact", "statistic": None}
    statistic = max(abs(only_first - only_second) - 1, 0) ** 2 / discordant
    # The tail of chi-square with one degree of freedom is that of the normal distribution, both sides.
    return {"p": math.erfc(math.sqrt(statistic / 2)), "test": "chi-square", "statistic": statistic}


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Return the expected calibration error (Guo, Pleiss, Sun and Weinberger, 2017).

    ``confidence`` [images] is the probability of the class that was chosen, ``correct`` [images] whether it is right.
    The bins are of one width; a value on a border is in the lower one.
    """
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    surplus = np.bincount(which, weights=correct.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(surplus).sum() / len(confidence))
