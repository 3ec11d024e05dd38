"""Ba and Caruana, Do Deep Nets Really Need to be Deep?, 2014, arXiv:1312.6184."""

from torch import Tensor
from torch.nn import functional as F

from kdtool import LossDistiller, Step, option


class LogitMSE(LossDistiller):
    """Match the teacher's raw logits (Ba and Caruana, 2014)."""

    weight: float = option(1.0, minimum=0, help="weight of the teacher's term")

    def loss(self, step: Step) -> Tensor:
        return step.cross_entropy() + self.weight * F.mse_loss(step.student, step.teacher)
