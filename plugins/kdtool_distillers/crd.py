"""Contrastive representation distillation (Tian, Krishnan and Isola, 2019, arXiv:1910.10699)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from kdtool import Distiller, Error, LossDistiller, Objective, Schedule, nested, option
from kdtool_distillers.relations import embedded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdtool import Network, Run, Step
    from kdtool.features import Pair
    from kdtool_distillers.contrast import Memory


class CRD(Distiller):
    """Embed each image as the teacher does, and unlike the teacher's embeddings of other classes (Tian et al., 2019).

    With e_i = normalised(W f_i + b) the embedding of the features f_i before the classifier, one learnt W and b for
    each network, and m_j the embeddings that a memory has of all n images, the score of image i of the batch with image
    j is h_ij = exp(e_i . m_j / T) / Z. With K images k(i) drawn from the other classes, and P = K / n,

    C = mean over i of -(log(h_ii / (h_ii + P)) + sum over k(i) of log(P / (h_ik + P)))

    is the loss of noise-contrastive estimation, in nats. The loss is that of the objective (by default the labels'
    cross-entropy) + weight * (C(student's e, teacher's m) + C(teacher's e, student's m)).

    After a step, m_i becomes normalised(momentum * m_i + (1 - momentum) * e_i). Z is such that the scores of the first
    batch are 1 / n on average. The embeddings are trained with the student and then dropped, as is the memory, which
    takes 8 * n * size bytes and is kept in the run's state. The defaults are the authors'; their CRD+KD is
    ``--objective none:1+kd:1``. They draw without repetitions where there are K images of other classes; here an image
    may be drawn twice.
    """

    also_called: ClassVar[tuple[str, ...]] = ("contrastive", "contrast")
    fits: ClassVar[str] = "Fits features that serve more than the classifier; memorises all images, slower steps."
    one_training: ClassVar[bool] = True
    hides: ClassVar[tuple[str, ...]] = ("momentum",)  # that of the optimiser: the paper has this word for the memory's

    weight: float | Schedule = option(0.8, minimum=0, help="weight of both contrastive terms")
    negatives: int = option(16384, minimum=1, help="number K of images of other classes for each image of a batch")
    temperature: float | Schedule = option(0.07, above=0, help="temperature T of the scores")
    momentum: float = option(0.5, minimum=0, below=1, help="part of an embedding in the memory that stays in a step")
    size: int = option(128, minimum=1, help="numbers in an embedding")
    objective: LossDistiller = nested("distillers", "none", help="loss of logits to which the contrast is added")
    taps: tuple[str, ...] | None = option(
        None, help="one layer to compare, STUDENT=TEACHER or one name for both; unset: the last before the classifier"
    )

    def distill(self, run: Run, teacher: Network, student: Network | None) -> Network:
        """Train the student with a memory of all images and return it."""
        from kdtool.training import Auxiliary
        from kdtool_distillers.contrast import Embeddings, Memory
        from kdtool_distillers.only_logits import need_logits, need_one_view

        self.check_student(named=student is not None, refined=False)
        assert student is not None
        need_one_view(self.name, self.objective)
        need_logits(self.name, self.objective, student, teacher)
        labels = run.data.train.labelled().labels
        if int(labels.bincount().max()) == len(labels):
            raise Error("crd compares images of different classes, and all images of the train split are of one class")
        (pair,) = self.pairs(student, teacher)
        with run.seeded("embeddings"):
            embeddings = Embeddings((pair.student.channels, pair.teacher.channels), self.size)
            memory = Memory(labels, size=self.size, momentum=self.momentum)
        return run.fit(
            self.name,
            student,
            teacher=teacher,
            objective=CRDLoss(self, memory),
            auxiliary=Auxiliary(embeddings),
            callbacks=[memory],
        ).network

    def pairs(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the pair of the last maps before the classifier, or that of ``taps``.

        Raises:
            UsageError: ``taps`` names no pair, or several.
        """
        from kdtool import UsageError
        from kdtool.features import last_stage_pair

        pairs = last_stage_pair(student, teacher, self.taps)
        if len(pairs) != 1:
            raise UsageError(f"--taps: crd compares one pair of layers, and this names {len(pairs)}")
        return pairs


@dataclass(frozen=True)
class CRDLoss(Objective):
    """The objective and the contrast of one batch with the memory; ``step.auxiliary`` holds the embeddings' weights."""

    name: ClassVar[str] = "crd"

    options: CRD
    memory: Memory = field(repr=False, compare=False)

    def needs_labels(self) -> bool:
        """Return True: images of other classes are drawn for each image."""
        return True

    def needs_classifier(self) -> bool:
        """Return whether the objective reads the weights of the teacher's classifier."""
        return self.options.objective.needs_classifier()

    def weights(self, part: str = "") -> Mapping[str, float | Schedule]:
        """Return the weight of the contrast."""
        return {"--weight": self.options.weight}

    def watch(self, student: Network, teacher: Network) -> Sequence[Pair]:
        """Return the pair of layers whose features are embedded."""
        return self.options.pairs(student, teacher)

    def adapters(self, pairs: Sequence[Pair]) -> nn.Module:
        """Return adapters without parameters: each network has its own embedding."""
        from kdtool.features import unadapted

        return unadapted(pairs)

    def loss(self, step: Step) -> Tensor:
        """Return the loss of one batch."""
        import torch
        from torch.nn import functional as F

        assert step.indices is not None
        (pair,), weights = step.maps, step.auxiliary
        embeddings = [
            F.normalize(F.linear(embedded(maps), weight, bias), dim=1)
            for maps, weight, bias in zip(pair, weights[::2], weights[1::2], strict=True)
        ]
        others = self.memory.negatives(step.target, self.options.negatives)
        indices = torch.cat([step.indices.to(others.device)[:, None], others], dim=1)
        scores = self.memory.scores(embeddings, indices, step.now(self.options.temperature))
        contrast = torch.stack([contrastive(rows, len(self.memory.order)) for rows in scores]).sum()
        # The maps are those of the contrast; the objective asked for none.
        own = self.options.objective.loss(dataclasses.replace(step, maps=(), owners=(), auxiliary=()))
        return own + step.now(self.options.weight) * contrast


def contrastive(scores: Tensor, images: int) -> Tensor:
    """Return the loss C of noise-contrastive estimation, a mean over the batch, in nats.

    ``scores`` [batch, 1 + K] are those of the image itself, then those of K others out of ``images``.
    """
    noise = (scores.shape[1] - 1) / images
    right, wrong = scores[:, 0], scores[:, 1:]
    # The authors add 1e-7 to both denominators.
    hits = (right / (right + noise + 1e-7)).log()
    misses = (noise / (wrong + noise + 1e-7)).log().sum(dim=1)
    return -(hits + misses).mean()
