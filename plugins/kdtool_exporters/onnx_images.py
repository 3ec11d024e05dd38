"""Validation images: which of them calibrate a quantisation, and how far two networks differ on them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdtool import Error

if TYPE_CHECKING:
    from torch import Tensor


def divergence(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
    """Return the mean Kullback-Leibler divergence sum_k p_k (log p_k - log q_k), in nats.

    p and q are the softmax of ``reference`` and ``logits``, both [images, classes]. It is infinite if an output is not
    finite.
    """
    if not np.isfinite(logits).all():
        return math.inf
    log_p, log_q = _log_softmax(reference), _log_softmax(logits)
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def calibration_images(
    val: Iterable[tuple[Tensor, Tensor]], number: int, spec: str
) -> tuple[list[NDArray[np.float32]], int]:
    """Return up to ``number`` images in arrays [batch, channels, height, width], and how many classes they are of.

    Every class has about as many images as the others, taken in the order of the validation split.

    Raises:
        kdtool.Error: there are none, or all are of one class.
    """
    labels = np.concatenate([target.numpy() for _, target in val] or [np.zeros(0, np.int64)])
    if len(labels) == 0:
        raise Error(f"{spec}: there are no validation images to calibrate with; name a data set with --data")
    classes = np.unique(labels)
    if len(classes) == 1:
        raise Error(
            f"{spec}: all {len(labels):,} validation images are of one class, so that the ranges of its activations "
            "would be those of that class; hold out images of every class (--validation, --split-seed)"
        )
    rank = np.empty(len(labels), np.int64)
    for value in classes:
        places = np.flatnonzero(labels == value)
        rank[places] = np.arange(len(places))
    # The first image of each class, then the second of each, and so on.
    chosen = np.zeros(len(labels), bool)
    chosen[np.lexsort((np.arange(len(labels)), rank))[:number]] = True
    images, start = [], 0
    for batch, target in val:
        mask = chosen[start : start + len(target)]
        start += len(target)
        if mask.any():
            images.append(batch.cpu().numpy()[mask])
    return images, len(np.unique(labels[chosen]))


def first_images(val: Iterable[tuple[Tensor, Tensor]], number: int) -> list[Tensor]:
    """Return batches of the first ``number`` images."""
    images, count = [], 0
    for batch, _ in val:
        images.append(batch[: number - count])
        count += len(images[-1])
        if count >= number:
            break
    return images
