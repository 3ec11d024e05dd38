"""Correlation congruence for knowledge distillation (Peng et al., 2019, arXiv:1904.01802)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from kdtool import Schedule, option
from kdtool_distillers.relations import Relation, embedded, need_others

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


class CC(Relation):
    """Match the correlations between the images of a batch to the teacher's (Peng et al., 2019).

    With e_i the features of image i before the classifier, divided by their norm, k_ij is the Taylor series of the
    Gaussian kernel up to p = order:
    exp(-gamma |e_i - e_j|^2) = exp(-2 gamma) * sum over p of (2 gamma)^p / p! * (e_i . e_j)^p.
    The loss is CE + weight * mean_ij (k_ij(s) - k_ij(t))^2.

    gamma and the order are the paper's. The weight is not: the paper adds this term to kd, and its authors published no
    code. 100 is the value of the example script of the repository AberHu/Knowledge-Distillation-Zoo, for this term
    without kd, ResNet-110 to 20 on CIFAR-10; its README says that its weights were not chosen carefully. Tian et al.
    (arXiv:1910.10699) use 0.02, but for another formula under the same name. So choose a weight by validation
    (``--search weight=1,10,100``).
    """

    fits: ClassVar[str] = "Fits in a sum with kd (kd+cc), as in the paper; needs batches of many images."

    weight: float | Schedule = option(100.0, minimum=0, help="weight of the teacher's term")
    gamma: float = option(0.4, above=0, help="width of the Gaussian kernel")
    order: int = option(2, minimum=1, help="order of the kernel's Taylor series")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch
        from torch.nn import functional as F

        need_others(self.name, step)
        terms = []
        for pair in step.maps:
            student, teacher = (correlations(embedded(maps), self.gamma, self.order) for maps in pair)
            terms.append(F.mse_loss(student, teacher))
        return step.cross_entropy() + step.now(self.weight) * torch.stack(terms).sum()


def correlations(features: Tensor, gamma: float, order: int) -> Tensor:
    """Return the Taylor series of the Gaussian kernel [batch, batch] between the images of a batch.

    ``features`` are [batch, channels]; each row is divided by its norm first.
    """
    import torch
    from torch.nn import functional as F

    rows = F.normalize(features)
    products = rows @ rows.t()
    # Horner's scheme: 1 + x/1 (1 + x/2 (1 + ...)) with x = 2 gamma e_i . e_j.
    series = torch.ones_like(products)
    for power in range(order, 0, -1):
        series = 1 + 2 * gamma / power * products * series
    return math.exp(-2 * gamma) * series
