"""Training on classes with very different numbers of images: weights of the classes, and balanced sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from kdtool.data.raw import UNLABELLED
from kdtool.data.splits import Split
from kdtool.errors import UsageError
from kdtool.utils.classification import balanced_weights


def class_weights(how: str, split: Split) -> Tensor | None:
    """Return the weights of the classes [classes] in float32 for ``--class-weights``, or None for equal ones.

    They come from the labels of ``split``, which is trained on; images without a label do not count.
    """
    if how == "none":
        return None
    known = split.labels[split.labels != UNLABELLED]
    return torch.from_numpy(balanced_weights(known.numpy(), len(split.spec.classes))).float()


def epoch_order(how: str, labels: Tensor) -> Tensor:
    """Return the indices of the images of an epoch, by torch's global random numbers.

    ``each`` is every image once. ``balanced`` draws as many images with replacement, so that each class is equally
    likely and each image of a class too.

    Raises:
        UsageError: images are to be drawn by their classes, and some have no label.
    """
    if how == "each":
        return torch.randperm(len(labels))
    if bool((labels == UNLABELLED).any()):
        raise UsageError("--sampling balanced: some images have no label; leave out --unlabelled, or --sampling")
    weights = torch.from_numpy(balanced_weights(labels.numpy(), int(labels.max()) + 1))
    # torch.multinomial takes at most 2**24 weights.
    return torch.multinomial(weights[labels], len(labels), replacement=True)
