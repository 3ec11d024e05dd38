"""Relational knowledge distillation (Park, Kim, Lu and Cho, 2019, arXiv:1904.05068)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Schedule, option
from kdtool_distillers.relations import Relation, embedded, need_others

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


class RKD(Relation):
    """Keep the teacher's distances and angles between the images of a batch (Park et al., 2019).

    With e_i the features of image i before the classifier, d_ij = |e_i - e_j| divided by its mean over the pairs
    i != j, and a_ijk the cosine of the angle at e_i between e_j and e_k, the loss is

    CE + distance * mean_ij huber(d_ij(s), d_ij(t)) + angle * mean_ijk huber(a_ijk(s), a_ijk(t)), where huber(x, y) is
    (x - y)^2 / 2 up to a difference of 1 and |x - y| - 1/2 for larger ones.

    The angles are computed for all triples: their memory is cubic in the batch (67 MB for each copy at 256 images).
    With ``--angle 0`` they are not computed.
    """

    also_called: ClassVar[tuple[str, ...]] = ("relational", "relation")
    fits: ClassVar[str] = (
        "Fits features that serve more than the classifier, such as image search; needs batches of many images."
    )

    weight_options: ClassVar[tuple[str, ...]] = ("distance", "angle")

    distance: float | Schedule = option(25.0, minimum=0, help="weight of the term of the distances")
    angle: float | Schedule = option(50.0, minimum=0, help="weight of the term of the angles; 0: do not compute them")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        from torch.nn import functional as F

        need_others(self.name, step)
        distance, angle = step.now(self.distance), step.now(self.angle)
        loss = step.cross_entropy()
        for pair in step.maps:
            student, teacher = (embedded(maps) for maps in pair)
            if distance:
                loss = loss + distance * F.smooth_l1_loss(distances(student), distances(teacher))
            if angle:
                loss = loss + angle * F.smooth_l1_loss(angles(student), angles(teacher))
        return loss


def distances(features: Tensor) -> Tensor:
    """Return the distances [batch, batch] of features [batch, channels], divided by the mean of the nonzero ones."""
    import torch

    # Matrix products would be faster, but inaccurate for images with nearly the same features.
    raw = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    count = (raw > 0).sum().clamp(min=1)
    mean = raw.sum() / count
    return raw / torch.where(mean > 0, mean, 1)


def angles(features: Tensor) -> Tensor:
    """Return the cosines [batch, batch, batch] of the angle at the first of three images between the two others.

    ``features`` are [batch, channels]. The cosine is 0 if the first image has the same features as one of the others.
    """
    import torch

    differences = features[None] - features[:, None]
    length = differences.norm(dim=2, keepdim=True)
    # Division by infinity gives images at distance 0 no direction and no gradient.
    unit = differences / torch.where(length > 0, length, torch.inf)
    return unit @ unit.transpose(1, 2)
