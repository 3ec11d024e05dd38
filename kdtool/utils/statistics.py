"""Confidence intervals of fractions and means, calibration error, and a test that compares two classifiers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""The level of a confidence interval, unless another is given."""

EXACT_BELOW = 25
"""With fewer discordant pairs the chi-square approximation is too rough, so the exact test is used."""


def wilson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the lower and upper bound of a fraction's confidence interval (Wilson, 1927).

    Unlike the normal approximation, it keeps its level near 0 and 1.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    fraction = successes / trials
    centre = fraction + z * z / (2 * trials)
    half = z * math.sqrt(fraction * (1 - fraction) / trials + z * z / (4 * trials * trials))
    # Rounding may move a bound of the interval for 0 or for all successes slightly outside [0, 1].
    return max(0.0, (centre - half) / (1 + z * z / trials)), min(1.0, (centre + half) / (1 + z * z / trials))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float] | None:
    """Return the mean and the bounds of its confidence interval (Student's t distribution).

    Return None for fewer than two values, which do not determine a variance.
    """
    from scipy.stats import t

    if len(values) < 2:
        return None
    mean = fmean(values)
    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def mcnemar(only_first: int, only_second: int) -> dict[str, Any]:
    """Test whether two classifiers err equally often on the same images (McNemar, 1947).

    ``only_first`` and ``only_second`` are the numbers of images that only the first or only the second classifier
    classifies correctly. If their sum is below 25, the test is exact (binomial, two-sided), otherwise chi-square with
    Edwards' continuity correction.

    Returns:
        ``p``, ``test`` (``exact`` or ``chi-square``) and ``statistic`` (None for the exact test).
    """
    discordant = only_first + only_second
    if discordant < EXACT_BELOW:
        tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1))
        return {"p": min(1.0, 2 * tail / 2**discordant), "test": "exact", "statistic": None}
    statistic = max(abs(only_first - only_second) - 1, 0) ** 2 / discordant
    # A chi-square variable with one degree of freedom is the square of a normal one: its tail is both normal tails.
    return {"p": math.erfc(math.sqrt(statistic / 2)), "test": "chi-square", "statistic": statistic}


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Return the expected calibration error (Guo, Pleiss, Sun and Weinberger, 2017).

    ``confidence`` [images] is the probability of the predicted class, ``correct`` [images] whether it is the true one.
    All bins have the same width; a value on a border belongs to the lower bin.
    """
    bin_of_image = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    surplus = np.bincount(bin_of_image, weights=correct.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(surplus).sum() / len(confidence))
