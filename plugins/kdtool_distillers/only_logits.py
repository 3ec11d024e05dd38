"""The check of strategies whose objective sees logits and no feature maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdtool import UsageError

if TYPE_CHECKING:
    from kdtool import Network, Objective


def need_logits(strategy: str, objective: Objective, student: Network, teacher: Network) -> None:
    """Check that an objective compares only logits and has a meaning for these networks.

    ``strategy`` is the name of the method in the message.

    Raises:
        UsageError: it compares feature maps.
        kdtool.Error: it has no meaning for these networks.
    """
    objective.check(student, teacher)
    if objective.watch(student, teacher):
        raise UsageError(
            f"--objective {objective.name}: compares layers, and {strategy} can compare only logits; use a loss of "
            "logits, such as kd"
        )
