"""Wasserstein distance for knowledge distillation (Lv, Yang and Li, 2024, arXiv:2412.08139)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from kdtool import Error, Schedule, UsageError, option
from kdtool.plugins import refuse_idle
from kdtool_distillers.warm_up import WarmUp

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Step
    from kdtool.features import Pair


class WKD(WarmUp):
    """Move the student's probabilities and the statistics of its maps to the teacher's, by Wasserstein distances (Lv et
    al., 2024).

    With p(z) = softmax(z), y the right class, q(z) the softmax of z / T over all classes except y, s and t the logits
    of student and teacher, the loss is a mean over the batch, in nats and in costs:

    CE + sum over logits: -p_y(t) * log p_y(s) + d * logit_weight * W(q(s), q(t))
    + sum over maps: d * feature_weight * (mean_ratio * |m(f) - m(g)|^2 + |v(f) - v(g)|^2).

    - W (WKD-L) is sum_ij F_ij C_ij, the cost of moving q(s) to q(t), with the plan F of Sinkhorn's algorithm. C_ij =
      1 - exp(-sharpness * (1 - cos(w_i, w_j))), with w_i the weights of class i in the teacher's linear classifier. The
      authors' tables have the centred kernel alignment of the features of all training images of two classes in place
      of the cosine; the cosine is their code's choice without a table ("fc"). The first term is theirs too.
    - The last term (WKD-F) is the distance of two normal distributions with diagonal covariances, summed over channels:
      m and v are mean and deviation over the positions of the last stage's maps f and g, v = sqrt(variance + 1e-5),
      and, with ``--grid`` above 1, of each cell of such a grid, averaged. f is the student's map after a 1x1
      convolution with batch-norm, and ReLU if the teacher's map ends in one; it is trained with the student and then
      dropped.
    - d is min(epoch / warm-up, 1) up to the epoch ``decay`` * epochs, then (1 + cos(pi * u)) / 2 with u from 0 to 1
      over the other epochs. There epochs count from 0; the authors' count from 1, with which the last one, and a
      training of one, has no teacher. The authors have no warm-up (``--teacher-warmup 0``), and train for 240 epochs;
      without it a student learned nothing in 10 epochs of few images with SGD.

    A weight of 0 leaves its part out, as the maps by default. The defaults are the authors' for ResNet-32x4 to 8x4 on
    CIFAR-100 with 240 epochs and logits alone. There they use ``--logit-weight 0 --feature-weight 0.006`` for the maps
    alone, and 200 and 0.08 with a ratio of 8 for both; for WRN-40-2 to ShuffleNetV1 200 with T = 6 for the logits, and
    0.3 with a ratio of 3 and a grid of 4 for the maps. On ImageNet, ResNet-34 to 18, they use 30 with T = 2 for the
    logits, and 0.02 with a ratio of 2 for the maps.
    """

    also_called: ClassVar[tuple[str, ...]] = ("wasserstein",)
    fits: ClassVar[str] = (
        "Fits many classes, some of which are alike; --logit-weight 0 --feature-weight 0.006 compares maps alone."
    )

    weight_options: ClassVar[tuple[str, ...]] = ("logit_weight", "feature_weight")

    logit_weight: float | Schedule = option(
        600.0, minimum=0, help="weight of the distance of probabilities (WKD-L); 0: do not compute it"
    )
    temperature: float | Schedule = option(8.0, above=0, help="temperature T that softens both outputs for it")
    sharpness: float = option(1.0, above=0, help="sharpness of the costs between classes")
    regularization: float = option(0.05, above=0, help="weight of the entropy in Sinkhorn's algorithm")
    iterations: int = option(10, minimum=1, help="iterations of Sinkhorn's algorithm")
    feature_weight: float | Schedule = option(
        0.0, minimum=0, help="weight of the distance of maps (WKD-F), such as 0.006; 0: do not compute it"
    )
    mean_ratio: float = option(4.0, minimum=0, help="weight of the means beside that of the deviations")
    grid: int = option(1, minimum=1, help="cells on each side of a map, in which it is compared")
    decay: float = option(
        0.625, minimum=0, maximum=1, help="part of the epochs after which both weights sink towards 0; 1: never"
    )
    taps: tuple[str, ...] | None = option(
        None, help="layers to compare, STUDENT=TEACHER or one name for both; unset: the last before the classifier"
    )

    def __post_init__(self) -> None:
        """Check that one of the two parts is in the loss, and that no option is of the other one."""
        super().__post_init__()
        if not self.logit_weight and not self.feature_weight:
            raise UsageError("--logit-weight 0 leaves nothing of wkd; give --feature-weight too, such as 0.006")
        if not self.logit_weight:
            read = ("temperature", "sharpness", "regularization", "iterations")
            refuse_idle(self, read, "--logit-weight above 0")
        if not self.feature_weight:
            refuse_idle(self, ("taps", "grid", "mean_ratio"), "--feature-weight above 0")

    def needs_labels(self) -> bool:
        """Return whether the logits are compared: the right class of every image is compared apart."""
        return bool(self.logit_weight)

    def needs_classifier(self) -> bool:
        """Return whether the logits are compared: the costs come from the teacher's classifier."""
        return bool(self.logit_weight)

    def check(self, student: Network, teacher: Network) -> None:
        """Check that there are costs between wrong classes, if the logits are compared.

        Raises:
            Error: there are fewer than three classes, or the teacher has no linear classifier.
        """
        from kdtool.features import classifier_weight

        if not self.logit_weight:
            return
        if student.architecture.classes < 3:
            raise Error(
                f"wkd moves probability between wrong classes, and of {student.architecture.classes} classes at most "
                "one is wrong; use --logit-weight 0 --feature-weight 0.006, or --method kd"
            )
        if classifier_weight(teacher) is None:
            raise Error(
                f"{teacher.architecture.spec}: its logits are not the outputs of one linear layer, from whose weights "
                "wkd takes the costs between classes; use --logit-weight 0 --feature-weight 0.006 to compare maps alone"
            )

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the pair of the last maps before the classifier, or pairs of ``taps``; none without their weight."""
        from kdtool.features import last_stage_pair
        from kdtool_distillers.regressors import rectified

        pairs = last_stage_pair(student, teacher, self.taps) if self.feature_weight else []
        return [rectified(pair, teacher) for pair in pairs]

    def adapter(self, pair: Pair) -> nn.Module:
        """Return the projector of the student's map; it is trained with the student and then dropped."""
        from kdtool_distillers.regressors import projector

        return projector(pair)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        decay, loss = self.warm(step) * decayed(step.epoch, step.epochs, self.decay), step.cross_entropy()
        if self.logit_weight:
            if step.classifier is None:
                raise UsageError("--objective wkd: needs the classifier of a fixed teacher, and here is none; use kd")
            cost = costs(step.classifier.to(step.student.dtype), self.sharpness)
            temperature = step.now(self.temperature)
            right, ours, theirs = separated(step.student, step.teacher, step.target, temperature)
            distance = transport(ours, theirs, cost, self.regularization, self.iterations)
            loss = loss + right + decay * step.now(self.logit_weight) * distance
        for student, teacher in step.maps:
            means, deviations = normal_distance(student, teacher, self.grid)
            loss = loss + decay * step.now(self.feature_weight) * (self.mean_ratio * means + deviations)
        return loss


def decayed(epoch: int, epochs: int, begin: float) -> float:
    """Return the factor d of an epoch, of which the first is 0: 1 up to ``begin`` * epochs, then a cosine towards 0."""
    start = begin * epochs
    return 1.0 if epoch <= start else (1 + math.cos(math.pi * (epoch - start) / (epochs - start))) / 2


def costs(classifier: Tensor, sharpness: float) -> Tensor:
    """Return the costs [classes, classes], 0 to 1, of moving probability from one class to another.

    ``classifier`` are weights [classes, features].
    """
    from torch.nn import functional as F

    rows = F.normalize(classifier, dim=1)
    return (1 - (-sharpness * (1 - rows @ rows.t())).exp()).relu() + 1e-8


def separated(student: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the term of the right class, a scalar in nats, and both networks' probabilities of the other classes.

    ``student`` and ``teacher`` are logits [batch, classes], ``target`` holds the right classes [batch]. The
    probabilities [batch, classes] are softened; that of the right class is 0.
    """
    from torch.nn import functional as F

    column, right = target[:, None], F.one_hot(target, student.shape[1]).bool()
    term = -(teacher.softmax(dim=1).gather(1, column) * student.log_softmax(dim=1).gather(1, column)).mean()
    ours, theirs = (
        (logits / temperature).masked_fill(right, -math.inf).softmax(dim=1) for logits in (student, teacher)
    )
    return term, ours, theirs


def transport(student: Tensor, teacher: Tensor, cost: Tensor, regularization: float, iterations: int) -> Tensor:
    """Return the cost of moving probabilities [batch, classes] of the student to the teacher's, a mean over the batch.

    ``cost`` is [classes, classes]. The plan u_i * K_ij * v_j with K = exp(-cost / regularization) comes from Sinkhorn's
    algorithm (Cuturi, 2013, arXiv:1306.0895). Classes without probability in both take no part.
    """
    kernel = (-cost / regularization).exp()
    takes_part = ((student > 0) | (teacher > 0)).to(student.dtype)
    u = takes_part / takes_part.sum(dim=1, keepdim=True)
    v = u
    for _ in range(iterations):
        v = teacher / (u @ kernel + 1e-8)
        u = student / (v @ kernel.t() + 1e-8)
    return (u * (v @ (kernel * cost).t())).sum(dim=1).mean()


def normal_distance(student: Tensor, teacher: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Return the squared differences of the means and of the deviations of two maps, scalars.

    They are summed over channels, and means over the batch and the cells of a grid. The maps are [batch, channels,
    height, width]; the resolutions may differ.
    """
    (our_mean, our_deviation), (their_mean, their_deviation) = (statistics(maps, grid) for maps in (student, teacher))
    return tuple(  # type: ignore[return-value]
        (ours - theirs).square().sum(dim=1).mean()
        for ours, theirs in ((our_mean, their_mean), (our_deviation, their_deviation))
    )


def statistics(maps: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation over the positions of each cell of maps, [batch, channels, cells].

    The cells are those of adaptive pooling. The variance of one position is 0.
    """
    import torch

    height, width = maps.shape[2:]
    means, variances = [], []
    for row in range(grid):
        rows = slice(row * height // grid, -(-(row + 1) * height // grid))
        for column in range(grid):
            cell = maps[:, :, rows, column * width // grid : -(-(column + 1) * width // grid)].flatten(2)
            means.append(cell.mean(dim=2))
            variances.append(cell.var(dim=2, correction=min(1, cell.shape[2] - 1)))
    return torch.stack(means, dim=2), (torch.stack(variances, dim=2) + 1e-5).sqrt()
