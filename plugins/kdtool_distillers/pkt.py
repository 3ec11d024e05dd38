"""Probabilistic knowledge transfer (Passalis and Tefas, 2018, arXiv:1803.10837)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Schedule, option
from kdtool_distillers.relations import Relation, embedded, need_others

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step

# The authors add it to norms and to probabilities.
EPSILON = 1e-7


class PKT(Relation):
    """Match the teacher's probability that two images of a batch are neighbours (Passalis and Tefas, 2018).

    With e_i the features of image i before the classifier, k_ij = (cos(e_i, e_j) + 1) / 2 and p_ij = k_ij / sum over j
    of k_ij, the loss is CE + weight * mean over i and j of p_ij(t) * log(p_ij(t) / p_ij(s)).

    As in the authors' code, 1e-7 is added to each norm and to both probabilities in the logarithm, and an image is a
    neighbour of itself. The weight is that of Tian et al. (arXiv:1910.10699, their repository); a mean over b * b pairs
    of probabilities of about 1 / b is small. The authors' own code has no term of the labels.
    """

    fits: ClassVar[str] = (
        "Fits features that serve more than the classifier, such as image search; the widths may differ."
    )

    weight: float | Schedule = option(30000.0, minimum=0, help="weight of the teacher's term")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch

        need_others(self.name, step)
        terms = [neighbours(embedded(student), embedded(teacher)) for student, teacher in step.maps]
        return step.cross_entropy() + step.now(self.weight) * torch.stack(terms).sum()


def neighbours(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over all pairs of images of p(t) * log(p(t) / p(s)), a scalar, in nats.

    ``student`` and ``teacher`` are features [batch, channels]; the numbers of channels may differ.
    """
    ours, theirs = probabilities(student), probabilities(teacher)
    return (theirs * ((theirs + EPSILON) / (ours + EPSILON)).log()).mean()


def probabilities(features: Tensor) -> Tensor:
    """Return for each image the probabilities [batch, batch] of its neighbours; ``features`` are [batch, channels]."""
    # This norm has the gradient 0 at 0, where that of a root is infinite.
    rows = features / (features.norm(dim=1, keepdim=True) + EPSILON)
    kernel = (rows @ rows.t() + 1) / 2
    probabilities: Tensor = kernel / kernel.sum(dim=1, keepdim=True)
    return probabilities
