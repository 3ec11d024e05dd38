"""How alike distilled and pruned networks of the same size are, from the results of their study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tables import Study, fact, say, show, spread

__all__ = ["alike", "from_digits", "from_same_size"]

NETWORKS = {"lenet-300-100": "LeNet-300-100", "lenet-5": "LeNet-5"}
"""The names of the networks, by their values in the study."""

LEFT = {50: "a half", 80: "a fifth", 90: "a tenth", 95: "a twentieth"}
"""What is left of the weights, by how many per cent are gone."""

WAYS = {"taught": "pruned and taught", "distilled": "distilled"}

PAIRS = {"two distillations": ("distilled", "again"), "distilled, and pruned and taught": ("distilled", "taught")}


def from_digits(study: Study) -> None:
    """Print how near networks on the digits are to their teachers: pruned and taught ones, beside distilled ones."""

    def of(a: str, b: str, key: str, **values: float) -> tuple[float, float]:
        """Return the images that two steps classify differently, and the distance of their logits."""
        pair = study.pair(a, b, network=key, **values)
        return pair["classified_differently"], pair["l2"]

    half = {key: of("teacher", "half", key) for key in NETWORKS}
    near = {key: of("half", "half-again", key)[1] / half[key][1] for key in NETWORKS}
    at = {(key, ratio): of("teacher", "pruned-taught", key, ratio=ratio) for key in NETWORKS for ratio in (0.8, 0.95)}
    images, distance = ({place: value[i] / half[place[0]][i] for place, value in at.items()} for i in (0, 1))
    far = [("lenet-300-100", 0.8), ("lenet-5", 0.95)]
    say(
        fact(
            "Two distillations give logits about as near to each other as to their teacher's (L2).",
            all(0.8 < value < 1.1 for value in near.values()),
        )
        + " "
        + fact(
            "A network that is pruned and taught ends far from its teacher, though it classifies about as few images "
            "differently as a distilled one, with LeNet-300-100 at 0.8 and LeNet-5 at 0.95 alone",
            all(images[place] < 1.2 and distance[place] > 2 for place in far),
        )
        + f" ({distance[far[0]]:.1f} and {distance[far[1]]:.1f} times the distance). "
        + fact("LeNet-5 at 0.8 ends nearer to its teacher than a distilled one", distance["lenet-5", 0.8] < 1)
        + f", and LeNet-300-100 at 0.95 differs from its teacher in {images['lenet-300-100', 0.95]:.1f} times as many "
        + fact("images.", images["lenet-300-100", 0.95] > 2)
    )


def from_same_size(study: Study) -> None:
    """Print the accuracies, then in how many images and by which distance pairs of networks differ."""
    _show(WAYS.values(), lambda gone, key: [study.percent(f"{way}-{gone}", digits=2, network=key) for way in WAYS])
    print(
        "Test images (of 10,000) that two networks of the same size classify differently, and the mean L2 distance of "
        "their logits:"
    )

    def differences(gone: int, key: str) -> list[str]:
        return [_differ(study.pair(f"{a}-{gone}", f"{b}-{gone}", network=key)) for a, b in PAIRS.values()]

    _show(PAIRS, differences)

    def accuracy(step: str, key: str) -> float:
        return 100 * float(study.mean(step, network=key)["accuracy"])

    gains = [accuracy(f"taught-{gone}", key) - accuracy(f"distilled-{gone}", key) for key in NETWORKS for gone in LEFT]
    images, distances = alike(study)
    say(
        "- "
        + fact("With as many weights, what is pruned and taught is ahead of what is distilled", min(gains) > 0)
        + f", by {min(gains):.1f} to {max(gains):.1f} points, "
        + fact("most where least is left", max(gains) == gains[list(LEFT).index(95)])
        + ": the pruned network keeps all its neurons.",
        "- "
        + fact(
            "Two distillations are no more alike in their classes than a distilled and a pruned network", images == 0
        )
        + ": all eight pairs of intervals overlap. "
        + fact("Their logits are nearer to each other where a tenth or less is left", distances == {90, 95})
        + " in both networks; with more weights it depends on the network.",
    )


def alike(study: Study) -> tuple[int, set[int]]:
    """Return how many intervals of images of eight pairs do not overlap, and the sizes that are told apart by L2.

    A pair is that of two distillations, and that of a distilled and a pruned network. At these sizes the logits of the
    former are nearer to each other for both networks.
    """
    images, distances = 0, set(LEFT)
    for gone in LEFT:
        for key in NETWORKS:
            same, other = (study.pair(f"{a}-{gone}", f"{b}-{gone}", network=key) for a, b in PAIRS.values())
            images += _is_below(same, other) or _is_below(other, same)
            if same["l2"] >= other["l2"]:
                distances.discard(gone)
    return images, distances


def _show(heads: Iterable[str], cells: Callable[[int, str], Sequence[str]]) -> None:
    """Print a table with a row for each size, and the same columns for both networks."""
    heads = list(heads)
    show(
        ["weights left", *(f"{name}: {head}" for name in NETWORKS.values() for head in heads)],
        [[left, *(cell for key in NETWORKS for cell in cells(gone, key))] for gone, left in LEFT.items()],
    )


def _differ(row: dict[str, Any]) -> str:
    return f"{spread(row, 'classified_differently', digits=0)}; {row['l2']:.1f}"


def _is_below(row: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(row["classified_differently_high"] < other["classified_differently_low"])
