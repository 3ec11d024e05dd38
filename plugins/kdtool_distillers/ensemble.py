"""Several teachers at once, as Hinton, Vinyals and Dean (2015, arXiv:1503.02531) distil an ensemble."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, LossDistiller, nested, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdtool import Network, Run


class Ensemble(Distiller):
    """Learn from several teachers at once, by the mean of their probabilities (Hinton et al., 2015).

    With z_i the logits of teacher i of n, the student is taught by p = sum over i of w_i * softmax(z_i), whose logits
    are log p:

    - ``equal``: w_i = 1 / n, the arithmetic mean.
    - ``validation``: w_i = exp(-L_i) / sum over j of exp(-L_j), with L_i the mean cross-entropy of teacher i on the
      validation split, in nats: exp(-L_i) is the geometric mean of the probability that it gives the right class.

    Each teacher is given the images as it was trained on them, where its checkpoint remembers how they were normalised.
    """

    fits: ClassVar[str] = "Fits where there are several trained networks, and room for one."
    several_teachers: ClassVar[bool] = True

    weights: str = option("equal", choices=("equal", "validation"), help="how much each teacher counts")
    objective: LossDistiller = nested("distillers", "kd", help="distiller whose loss is used")

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Put the teachers together, and train the student."""
        from kdtool_distillers.mean_of import mean_of, renormalised
        from kdtool_distillers.only_logits import need_logits

        self.check_teachers(len(run.teachers))
        self.check_student(named=student is not None, refined=False)
        assert student is not None
        need_logits(self.name, self.objective, student, teacher)
        spec, networks, changes = run.data.spec, [], []
        for one in run.teachers:
            networks.append(one.network)
            own = one.data or spec
            changes.append(renormalised((spec.mean, spec.std), (own.mean, own.std)))
        alone = [mean_of([network], changes=[change]) for network, change in zip(networks, changes, strict=True)]
        weights = [1 / len(networks)] * len(networks)
        if self.weights == "validation":
            weights = by_loss([run.evaluate(one)["loss"] for one in alone])
        for number, (single, weight) in enumerate(zip(alone, weights, strict=True), start=1):
            run.add_row(f"teacher {number}", single, taught_by="", weight=weight)
        together = mean_of(networks, weights, changes)
        run.add_row("all teachers", together, taught_by="")
        network = run.fit(self.name, student, teacher=together, objective=self.objective).network
        run.keep("student", network, taught_by="all teachers")
        return network


def by_loss(losses: Sequence[float]) -> list[float]:
    """Return weights proportional to exp(-loss) that sum to 1; losses are in nats."""
    least = min(losses)
    shares = [math.exp(least - loss) for loss in losses]
    return [share / sum(shares) for share in shares]
