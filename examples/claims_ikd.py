"""The claims of the paper on iterative distillation."""

from __future__ import annotations

from pathlib import Path

from claim import Claim
from conclusions_ikd import MOST, lost, parents_kept, reach
from tables import study_of

__all__ = ["of_ikd"]


def of_ikd(here: Path) -> list[Claim]:
    """Return the claims about iterative distillation; ``here`` is the directory of the examples."""
    digits, study = study_of(here, "ikd"), study_of(here, "ikd", "results-mnist.json")
    results, recipe = "results-mnist.json", "mnist.toml"
    error = {step: study.percent(step, "error", 2) for step in ("M0", "M1", "M2", "M3")}
    (parents, choices), (of_digits, choices_of_digits) = parents_kept(study), parents_kept(digits)
    grows = f"error {error['M0']} (M0), {error['M1']} (4x), {error['M2']} (16x), {error['M3']} (62x); MNIST"
    pruned = lost(digits)
    reached = reach(digits, study_of(here, "ikd", "results-architectures.json"))
    farthest = ", ".join(f"{times:.0f}x {network}" for network, times in reached.items())
    return [
        Claim(
            *("ikd", "The parent is the best teacher", "agree on MNIST, no difference on the digits"),
            f"kept in {parents} of {choices} choices on MNIST, in {of_digits} of {choices_of_digits} on the digits",
            *(results, recipe),
            holds=parents > choices / 2 > of_digits,
        ),
        Claim("ikd", "The error grows slowly", "agree to 16x, disagree beyond", grows, results, recipe),
        Claim(
            *("ikd", "The compression that is possible depends on the architecture", "agree"),
            f"at most {MOST} more points of error: {farthest} (digits, one seed)",
            *("results-architectures.json", "architectures.toml"),
            holds=len({round(times) for times in reached.values()}) > 1,
        ),
        Claim(
            *("ikd", "Pruning after the iterations compresses further", "agree on MNIST, to 16x on the digits"),
            f"half of the weights: at most {max(*lost(study), 0):.2f} points more error at all sizes on MNIST; on the "
            f"digits {max(*pruned[:3], 0):.2f} to 16x, {min(pruned[3:]):.1f} and more beyond",
            *(results, recipe),
            holds=max(lost(study)) < 0.2 and max(pruned[:3]) < 0.5 and min(pruned[3:]) > 3,
        ),
        Claim(
            *("ikd", "DenseNet-121, VGG-19 and ResNet-152 on MNIST and CIFAR-10", "not run", "needs a GPU", ""),
            "recipe.toml",
        ),
    ]
