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

    With e_i the features before the classifier, d_ij = |e_i - e_j| over its mean over the pairs i != j, and
    a_ijk = cos of the angle at e_i between e_j and e_k, the loss is

    CE + distance * mean_ij huber(d_ij(s), d_ij(t)) + angle * mean_ijk huber(a_ijk(s), a_ijk(t)), where huber(x, y) is
    (x - y)^2 / 2 up to a difference of 1 and |x - y| - 1/2 from there on.

    The angles are over all triples: their memory is cubic in the batch (67 MB for each copy at 256 images). With
    ``--angle 0`` they are not computed.
    """

    fits: ClassVar[str] = (
        "Fits features that are used for more than the classes, such as search; needs batches of many images."
    )

    distance: float | Schedule = option(25.0, minimum=0, help="weight of the distances")
    angle: float | Schedule = option(50.0, minimum=0, help="weight of the angles")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        from torch.nn import functional as F

        need_others(self.name, step)
        distance, angle = step.now(self.distance), step.now(self.angle)
        loss = step.cross_entropy()
        for both in step.maps:
            ours, theirs = (embedded(maps) for maps in both)
            if distance:
                loss = loss + distance * F.smooth_l1_loss(distances(ours), distances(theirs))
            if angle:
                loss = loss + angle * F.smooth_l1_loss(angles(ours), angles(theirs))
        return loss


def distances(features: Tensor) -> Tensor:
    """Return the distances [batch, batch] of features [batch, channels], over the mean of those that are not 0."""
    import torch

    # By products of matrices it would be quicker, but wrong for images that are alike.
    found = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    count = (found > 0).sum().clamp(min=1)
    mean = found.sum() / count
    return found / torch.where(mean > 0, mean, 1)


def angles(features: Tensor) -> Tensor:
    """Return the cosines [batch, batch, batch] of the angle at the first of three images between the two others.

    Where two of them have equal features it is 0.
    """
    import torch

    to = features[None] - features[:, None]
    length = to.norm(dim=2, keepdim=True)
    # Division by infinity: no direction, and no gradient, where there is no distance.
    unit = to / torch.where(length > 0, length, torch.inf)
    return unit @ unit.transpose(1, 2)
