"""Measures of a classifier beside its accuracy, by scikit-learn; of skewed data they tell more.

All functions take the logits [images, classes] and the true classes [images] as arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP = 5
"""How many of the likeliest classes count for the top-5 accuracy."""

CHUNK = 1024
"""How many images are ranked at once, which bounds the memory: of many classes the logits are gigabytes."""


def decisive(logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """Return ``balanced_accuracy`` and, of more than five classes, ``top5``, both as fractions.

    The balanced accuracy is the mean of the classes' recalls (Brodersen et al., 2010); classes without an image are
    left out. The top-5 accuracy is the fraction of images whose class is among the five likeliest.
    """
    from sklearn.metrics import recall_score

    present = np.unique(labels)
    recalls = recall_score(labels, logits.argmax(1), labels=present, average="macro", zero_division=0)
    numbers = {"balanced_accuracy": float(recalls)}
    if logits.shape[1] > TOP:
        chunks = range(0, len(labels), CHUNK)
        hits = sum(_likely(logits[start : start + CHUNK], labels[start : start + CHUNK]) for start in chunks)
        numbers["top5"] = hits / len(labels)
    return numbers


def deciding(metrics: Mapping[str, Any]) -> float:
    """Return the accuracy by which models are compared: the balanced one where ``--select`` had it measured."""
    return float(metrics.get("balanced_accuracy", metrics["accuracy"]))


def _likely(logits: NDArray[Any], labels: NDArray[Any]) -> int:
    """Return how many images have their class among the likeliest; of equal logits that of the last class is larger.

    It counts the larger logits, as scikit-learn's ``top_k_accuracy_score`` would but without sorting all of them.
    """
    logits, labels = np.nan_to_num(logits), labels[:, None]
    own = np.take_along_axis(logits, labels, 1)
    larger = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) > labels))
    return int((larger.sum(1) < TOP).sum())


def per_class(logits: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each class ``class`` (its name), ``images``, ``recall``, ``precision`` and ``f1``.

    A number that is not defined, such as the precision of a class that is never answered, is None.
    """
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, images = precision_recall_fscore_support(
        labels, logits.argmax(1), labels=np.arange(len(names)), zero_division=np.nan
    )
    return [
        {
            "class": name,
            "images": int(images[number]),
            **{
                key: None if np.isnan(values[number]) else float(values[number])
                for key, values in (("recall", recall), ("precision", precision), ("f1", f1))
            },
        }
        for number, name in enumerate(names)
    ]


def confusion(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many images of each class (rows) are taken for each class (columns)."""
    from sklearn.metrics import confusion_matrix

    counts: NDArray[np.int64] = confusion_matrix(labels, logits.argmax(1), labels=np.arange(logits.shape[1]))
    return counts


def most_taken_for(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> list[tuple[str, int] | None]:
    """Return for each class which other one its images are most often taken for, and how many; None if none are.

    ``counts`` are those of `confusion`.
    """
    taken: list[tuple[str, int] | None] = []
    for number, row in enumerate(counts):
        others = [column for column in range(len(row)) if column != number]
        wrong = max(others, key=row.__getitem__, default=None)
        taken.append((classes[wrong], row[wrong]) if wrong is not None and row[wrong] else None)
    return taken


def balanced_weights(labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Return a weight for each class, N / (C n_c) with the N images of C classes, n_c of each (King and Zeng, 2001).

    So the mean weight of an image is 1. A class without an image has the weight 0 and does not count.
    """
    from sklearn.utils.class_weight import compute_class_weight

    weights = np.zeros(classes)
    present = np.unique(labels)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    return weights
