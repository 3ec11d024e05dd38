"""Distillation from several teachers at once, an ensemble (Hinton, Vinyals and Dean, 2015, arXiv:1503.02531)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeVar

from kdtool import Distiller, LossDistiller, Objective, Schedule, nested, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Run, Step
    from kdtool.features import Pair

Thing = TypeVar("Thing")


class Ensemble(Distiller):
    """Learn from several teachers at once, from the mean of their probabilities (Hinton et al., 2015).

    With z_i the logits of teacher i of n, the student is taught by p = sum over i of w_i * softmax(z_i), whose logits
    are log p:

    - ``equal``: w_i = 1 / n, the arithmetic mean.
    - ``validation``: w_i = exp(-L_i) / sum over j of exp(-L_j), with L_i the mean cross-entropy of teacher i on the
      validation split, in nats: exp(-L_i) is the geometric mean of the probability that it gives to the right class.

    An objective that compares maps does so with each teacher, with adapters of its own for each:

    loss = sum over i of w_i * objective(y, z, log p, m_i, m_i'), with z the student's logits, m_i' the maps of teacher
    i, and m_i those of the student that are compared with them. So networks without a classifier teach together.

    Each teacher sees images with the normalisation that it was trained with, and its classes are matched by name, if
    its checkpoint records them.
    """

    also_called: ClassVar[tuple[str, ...]] = ("multi-teacher", "teachers")
    fits: ClassVar[str] = "Fits if there are several trained networks, and only one can be deployed."
    one_training: ClassVar[bool] = True
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
        from kdtool_distillers.only_logits import need_no_classifier, need_one_view

        self.check_teachers(len(run.teachers))
        self.check_student(named=student is not None, refined=False)
        assert student is not None
        need_no_classifier(self.name, self.objective)
        networks = [checkpoint.network for checkpoint in run.teachers]
        for network in networks:
            self.objective.check(student, network)
        weights = [1 / len(networks)] * len(networks)
        if self.weights == "validation":
            weights = by_loss([run.evaluate(network)["loss"] for network in networks])
        objective: Objective = self.objective
        if any(objective.watch(student, network) for network in networks):
            need_one_view(self.name, objective)
            objective = EnsembleLoss(objective, tuple(weights), tuple(networks))
        for number, (network, weight) in enumerate(zip(networks, weights, strict=True), start=1):
            run.add_row(f"teacher {number}", network, taught_by="", weight=weight)
        ensemble = mean_of(networks, weights)
        run.add_row("all teachers", ensemble, taught_by="")
        trained = run.fit(self.name, student, teacher=ensemble, objective=objective).network
        run.keep("student", trained, taught_by="all teachers")
        return trained


@dataclass(frozen=True)
class EnsembleLoss(Objective):
    """The weighted mean of the losses of an objective that compares maps, one for each teacher; the logits are shared.

    The teachers are the members of one `Mean`. The owner of a pair of maps (see `kdtool.features.Pair`) begins with the
    number of its teacher.
    """

    name: ClassVar[str] = "ensemble"

    objective: Objective
    """What the student learns from each teacher."""
    shares: tuple[float, ...]
    """The weights of the teachers, which sum to 1."""
    networks: tuple[Network, ...] = field(repr=False, compare=False)

    def needs_labels(self) -> bool:
        """Return whether the objective needs labels."""
        return self.objective.needs_labels()

    def weights(self, part: str = "") -> Mapping[str, float | Schedule]:
        """Return the options that weigh the terms of the objective."""
        return self.objective.weights(part)

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the pairs of layers that the objective compares with each of the networks in ``teacher``."""
        return [
            dataclasses.replace(
                pair,
                teacher=dataclasses.replace(pair.teacher, path=f"members.{number}.{pair.teacher.path}"),
                owner=f"{number}:{pair.owner}",
            )
            for number, network in enumerate(self.networks)
            for pair in self.objective.watch(student, network)
        ]

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return the adapters of the objective, once for each teacher."""
        from kdtool.features import Parts

        parts = self._by_teacher((pair.owner, pair) for pair in pairs)
        return Parts(
            (len(part), self.objective.adapters([dataclasses.replace(pair, owner=owner) for owner, pair in part]))
            for part in parts
        )

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        terms = []
        for share, part in zip(self.shares, self._by_teacher(zip(step.owners, step.maps, strict=True)), strict=True):
            owners, maps = [owner for owner, _ in part], [pair for _, pair in part]
            terms.append(share * self.objective.loss(dataclasses.replace(step, maps=maps, owners=owners)))
        return torch.stack(terms).sum()

    def _by_teacher(self, owned: Iterable[tuple[str, Thing]]) -> list[list[tuple[str, Thing]]]:
        """Return things by teacher, each with its owner in the objective in the place of its owner here."""
        parts: list[list[tuple[str, Thing]]] = [[] for _ in self.networks]
        for owner, thing in owned:
            number, _, own = owner.partition(":")
            parts[int(number)].append((own, thing))
        return parts


def by_loss(losses: Sequence[float]) -> list[float]:
    """Return one weight per loss, proportional to exp(-loss), that sum to 1; losses are in nats."""
    smallest = min(losses)
    shares = [math.exp(smallest - loss) for loss in losses]
    return [share / sum(shares) for share in shares]
