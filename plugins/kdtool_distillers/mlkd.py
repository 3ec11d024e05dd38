"""Multi-level logit distillation (Jin, Wang and Lin, CVPR 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kdtool import Schedule, option
from kdtool_distillers.warm_up import WarmUp

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool import Step


# The authors' weight between classes, for this number of images per step and of classes.
CLASS_WEIGHT, AUTHORS_IMAGES, AUTHORS_CLASSES = 0.45, 64, 100


class MLKD(WarmUp):
    """Match the teacher's probabilities for each image, between images and between classes, at several temperatures
    (Jin et al., 2023).

    With logits s and t of student and teacher [batch, classes] and P_T(z) = softmax(z / T) the matrix of b rows and c
    columns, the loss is

    labels * CE + w * sum over T of (instance_weight * T^2 * KL(P_T(t) || P_T(s))
    + batch_weight * |P_T(s) P_T(s)' - P_T(t) P_T(t)'|^2 / b + class_weight * |P_T(s)' P_T(s) - P_T(t)' P_T(t)|^2 / c),

    where ' is the transpose, |.|^2 the sum of squares, CE and KL are means over the batch, in nats, and
    w = min(epoch / warm-up, 1) with epochs that count from 1. The authors have no warm-up (``--teacher-warmup 0``), and
    train for 240 epochs; in a short training with SGD the first steps may be so large that the student never learns.

    The authors show each image in two views, weak and strong augmentation (RandAugment), to both networks. Here it is
    shown in one, the view of ``--augment``, which stands for both. Their code (its defaults for CIFAR-100, weights of
    0.1 and 0.9) adds 0.1 * CE and 0.9 * KL of each view, and of the weak view 0.9 * m times each of the three terms,
    where m is the share of images, for the last term of classes, whose confidence is at most the median: 1/2, unless
    there are ties. The masks scale whole terms; they select no images. With equal views these are the defaults here:
    0.2 = 2 * 0.1, 1.35 = (1 + 1/2) * 0.9, and 0.45 = 0.9 / 2 twice. On ImageNet the authors' weights are 0.5 and 0.5,
    and a temperature of 1 takes the place of 4.

    For sure networks the term between classes is of the order of (b / c)^2: with 128 images and 10 classes 400 times
    that of the authors' 64 images and 100 classes, and then it is most of the loss. So ``class_weight`` is 0.45 for
    their b and c, and else 0.45 * (0.64 * c / b)^2; ``--class-weight 0.45`` gives their number for any.
    """

    fits: ClassVar[str] = "Fits any two networks with the same classes, if kd helps; large batches help it."
    weight_option: ClassVar[str] = "instance_weight"
    weight_options: ClassVar[tuple[str, ...]] = ("instance_weight", "batch_weight", "class_weight")

    temperatures: tuple[float, ...] = option(
        (2.0, 3.0, 4.0, 5.0, 6.0), above=0, help="temperatures that soften both outputs; the terms of all are added"
    )
    instance_weight: float | Schedule = option(1.35, minimum=0, help="weight of the probabilities of each image")
    batch_weight: float | Schedule = option(0.45, minimum=0, help="weight of the products between images")
    class_weight: float | Schedule | None = option(
        None,
        minimum=0,
        help="weight of the products between classes; unset: 0.45 for 64 images a step and 100 classes, else in "
        "proportion to (classes / images)^2",
    )
    labels: float | Schedule = option(0.2, minimum=0, help="weight of the labels' cross-entropy")

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        loss, warm = step.now(self.labels) * step.cross_entropy(), self.warm(step)
        between_classes = scaled(step.student) if self.class_weight is None else step.now(self.class_weight)
        weights = [warm * step.now(self.instance_weight), warm * step.now(self.batch_weight), warm * between_classes]
        for temperature in self.temperatures:
            terms = levels(step.student, step.teacher, temperature)
            loss = loss + sum(weight * term for weight, term in zip(weights, terms, strict=True))
        return loss


def scaled(student: Tensor) -> float:
    """Return the weight between classes that makes up for the size of logits [batch, classes]."""
    images, classes = student.shape
    return CLASS_WEIGHT * (AUTHORS_IMAGES / AUTHORS_CLASSES * classes / images) ** 2


def levels(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the terms of one temperature: of each image (in nats), between images and between classes, scalars.

    ``student`` and ``teacher`` are logits [batch, classes].
    """
    from kdtool_distillers.kd import hinton

    ours, theirs = ((logits / temperature).softmax(dim=1) for logits in (student, teacher))
    between_images = (ours @ ours.t() - theirs @ theirs.t()).square().sum() / len(ours)
    between_classes = (ours.t() @ ours - theirs.t() @ theirs).square().sum() / ours.shape[1]
    return hinton(student, teacher, temperature), between_images, between_classes
