"""What the strategies ask of an objective that have logits to learn from and no layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdtool import UsageError

if TYPE_CHECKING:
    from kdtool import Network, Objective


def need_logits(strategy: str, objective: Objective, student: Network, teacher: Network) -> None:
    """Check that a loss compares logits alone, and has a meaning for these networks.

    Raises:
        UsageError: it looks at layers.
        kdtool.Error: it has no meaning.
    """
    objective.check(student, teacher)
    if objective.watch(student, teacher):
        raise UsageError(
            f"--objective {objective.name}: looks at layers, and {strategy} has none to compare; use a loss of logits, "
            "such as kd"
        )
