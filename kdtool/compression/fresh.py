"""The candidate with fresh weights that gets a full training whatever its trials say, if there is time for it.

A short training cannot show what fresh weights learn in a long one, where candidates with weights of the teacher are
near their end after a few epochs. With the same epochs, teacher and MACs the fresh network can be the better one: a
ResNet-10-T reached 77.0 % of the CIFAR-10 test images in nine epochs, a ResNet-18 of as many MACs that kept its
teacher's weights 76.5 % (examples/budget/README.md). That takes about as long as the teacher was trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdtool.compression.candidates import Candidate


def fresh_one(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate with fresh weights that has the most MACs; None if there is none, or if there are no others.

    Of networks that cost the same the one that computes more is likely to learn more.
    """
    trained = [one for one in candidates if one.trains and one.network is not None and one.cost is not None]
    fresh = [one for one in trained if not one.inherits]
    if len(fresh) == len(trained):
        return None
    return max(fresh, key=lambda one: one.cost.macs if one.cost else 0, default=None)


def epochs_seen(history: Iterable[Mapping[str, Any]], images: int) -> float | None:
    """Return for how many epochs of ``images`` images a network was trained, by the history of its checkpoint.

    None if that is not known: it was trained elsewhere, or the history does not say.
    """
    seen = 0.0
    for entry in history:
        if entry.get("trained_elsewhere"):
            return None
        training, data = entry.get("training"), entry.get("data")
        try:
            epochs = float(training["epochs"]) if training else 0.0
            of_images = float(data["splits"]["train"]["images"]) if epochs and data else 0.0
        except (KeyError, TypeError, ValueError):
            return None
        seen += epochs * of_images / max(images, 1)
    return seen or None
