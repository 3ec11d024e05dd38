"""Distillation from several teachers at once, an ensemble (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, LossDistiller, nested, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdtool import Network, Run


class Ensemble(Distiller):
    """Learn from several teachers at once, from the mean of their probabilities (Hinton et al., 2015).

    With z_i the logits of teacher i of n, the student is taught by p = sum over i of w_i * softmax(z_i), whose logits
    are log p:

    - ``equal``: w_i = 1 / n, the arithmetic mean.
    - ``validation``: w_i = exp(-L_i) / sum over j of exp(-L_j), with L_i the mean cross-entropy of teacher i on the
      validation split, in nats: exp(-L_i) is the geometric mean of the probability that it gives to the right class.

    Each teacher sees images with the normalisation that it was trained with, and its classes are matched by name, if
    its checkpoint records them.
    """

    also_called: ClassVar[tuple[str, ...]] = ("multi-teacher", "teachers")
    fits: ClassVar[str] = "Fits if there are several trained networks, and only one can be deployed."
    several_teachers: ClassVar[bool] = True

    weights: str = option(
        "equal",
        choices=("equal", "validation"),
        help="weights of the teachers: all equal, or by the validation loss of each",
    )
    objective: LossDistiller = nested("distillers", "kd", help="distiller whose loss is used")

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Combine the teachers into one, train the student and return it."""
        from kdtool_distillers.mean_of import mean_of
        from kdtool_distillers.only_logits import need_logits, need_no_classifier

        self.check_teachers(len(run.teachers))
        self.check_student(named=student is not None, refined=False)
        assert student is not None
        need_no_classifier(self.name, self.objective)
        need_logits(self.name, self.objective, student, teacher)
        networks = [checkpoint.network for checkpoint in run.teachers]
        weights = [1 / len(networks)] * len(networks)
        if self.weights == "validation":
            weights = by_loss([run.evaluate(network)["loss"] for network in networks])
        for number, (network, weight) in enumerate(zip(networks, weights, strict=True), start=1):
            run.add_row(f"teacher {number}", network, taught_by="", weight=weight)
        ensemble = mean_of(networks, weights)
        run.add_row("all teachers", ensemble, taught_by="")
        trained = run.fit(self.name, student, teacher=ensemble, objective=self.objective).network
        run.keep("student", trained, taught_by="all teachers")
        return trained


def by_loss(losses: Sequence[float]) -> list[float]:
    """Return one weight per loss, proportional to exp(-loss), that sum to 1; losses are in nats."""
    smallest = min(losses)
    shares = [math.exp(smallest - loss) for loss in losses]
    return [share / sum(shares) for share in shares]
