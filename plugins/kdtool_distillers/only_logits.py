"""The checks of strategies whose objective sees less than alone: no maps, no classifier, or one view of an image."""

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


def need_one_view(strategy: str, objective: Objective) -> None:
    """Check that an objective is not one that is given every image twice (see `kdtool.Objective.two_views`).

    Strategies with a loss of their own around that of the objective are given every image once; an objective that
    splits such a batch in two would compare different images. ``strategy`` is the name of the method in the message.

    Raises:
        UsageError: it is given every image twice.
    """
    if objective.two_views:
        raise UsageError(
            f"--objective {objective.name}: needs two views of every image, which {strategy} does not have; use a loss "
            "of one view, such as kd"
        )


def need_no_classifier(strategy: str, objective: Objective) -> None:
    """Check that an objective does not read the weights of the teacher's classifier.

    ``strategy`` is the name of the method in the message, which teaches by something else than one fixed network.

    Raises:
        UsageError: it reads them.
    """
    if objective.needs_classifier():
        raise UsageError(
            f"--objective {objective.name}: needs the final classifier of one fixed teacher, which {strategy} does not "
            "have; use kd"
        )
