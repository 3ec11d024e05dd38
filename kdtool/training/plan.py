"""The plan of one phase: which part of which student learns what from whom, and what each step is given; its result."""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from torch import nn

from kdtool.data.splits import Data, Split
from kdtool.errors import FAILURES, Error, UsageError
from kdtool.features.classifier import classifier_weight
from kdtool.features.pairs import Pair
from kdtool.features.segments import Part, Segment, cuttable, segments
from kdtool.features.taps import Tap, stage_taps
from kdtool.models.architecture import Network
from kdtool.models.conversion import digest
from kdtool.models.modules import check_transparent, is_opaque
from kdtool.models.weights import load_exactly
from kdtool.training.batches import DistillationBatches, kept_on
from kdtool.training.engine import Engine
from kdtool.training.frozen_network import LOGITS, FrozenNetwork
from kdtool.training.mixing import mixing_of
from kdtool.training.objective import Objective, loss_of
from kdtool.training.options import Training
from kdtool.training.output_cache import Cache
from kdtool.training.student import Auxiliary, StudentModule
from kdtool.training.two_views import STRONG, TwoViews
from kdtool.utils.progress import say_once
from kdtool.utils.seeds import derive, seeded

if TYPE_CHECKING:
    from torch import Tensor

    from kdtool.training.callback import Callback
    from kdtool.training.step import Step


@dataclass
class Fit:
    """The result of a phase: the trained network and its validation metrics."""

    network: Network
    metrics: dict[str, Any]
    auxiliary: nn.Module | None = None
    """The auxiliary networks, as they were in the student's best epoch."""


class FitPlan:
    """A student or a part of it, a teacher or none, and the objective that compares the two."""

    def __init__(
        self,
        name: str,
        student: Network,
        teacher: Network | None,
        objective: Objective | None,
        part: Part | None,
        auxiliary: Auxiliary | None,
        training: Training,
    ) -> None:
        """Plan the phase ``name``.

        Without an objective the student learns from the labels alone, and the teacher is not run.

        Raises:
            Error: the objective has no meaning for these two networks.
        """
        self.name, self.student, self.part, self.training = name, student, part, training
        self.objective, self.auxiliary = objective, auxiliary
        self.teacher = teacher if objective is not None else None
        for learner in (student, auxiliary):
            if learner is not None:
                check_transparent(learner.module, "it has no weights that could be trained")
        if objective is not None and teacher is not None:
            check_teacher(objective, student, teacher)
            objective.check(student, teacher)
        self.logits = objective is not None and objective.logits

    def loss(self, step: Step) -> Tensor:
        """Return the loss of a batch: the objective's, else the cross-entropy against the labels."""
        return step.cross_entropy() if self.objective is None else loss_of(self.objective, step)

    @property
    def drawn_as(self) -> str:
        """The name from which an epoch's order and random numbers follow.

        It is that of the phase, but alike for all losses, so that methods with the same seed see the same batches.
        """
        return "loss" if self.objective is not None and self.name == self.objective.name else self.name

    @property
    def validates(self) -> str:
        """What selects the best epoch: the ``accuracy`` on the validation split, or the ``loss`` there."""
        return "accuracy" if self.objective is None else self.objective.validates

    @cached_property
    def classifier(self) -> Tensor | None:
        """The weights of the teacher's classifier; None where the objective needs none, or where there is none."""
        if self.teacher is None or self.objective is None or not self.objective.needs_classifier():
            return None
        return classifier_weight(self.teacher)

    @property
    def networks(self) -> list[Network]:
        """The networks that run in a step: the student, and the teacher where the objective reads it."""
        return [self.student] if self.teacher is None else [self.student, self.teacher]

    @cached_property
    def pairs(self) -> Sequence[Pair]:
        """The layers that are watched."""
        if self.teacher is None or self.objective is None:
            return ()
        return tuple(self.objective.watch(self.student, self.teacher))

    @cached_property
    def key(self) -> str:
        """A text that differs between phases that differ in anything that decides their result."""
        taught_by = digest(self.teacher.module) if self.teacher is not None else ""
        weights = digest(self.student.module)
        # Where outputs are cached does not change the result.
        training = {**self.training.as_data(), "cache": "", "cache_limit": 0, "threads": None}
        identity: tuple[object, ...] = (training, self.objective, taught_by, weights, self.pairs, self.part)
        if self.auxiliary is not None:
            identity = (*identity, digest(self.auxiliary.module), self.auxiliary.taps)
        return f"{derive(repr(identity)):x}"

    def student_module(self, module: nn.Module) -> StudentModule:
        """Return the student's module as the loop sees it, with fresh adapters and a copy of the auxiliary networks."""
        adapters: nn.Module | None = None
        if self.objective is not None:
            with seeded(self.training.seed, self.name, "adapters"):
                adapters = self.objective.adapters(self.pairs)
        part = self.part
        return StudentModule(
            module,
            segment=part.segment if part else None,
            learns=part.learns if part else None,
            pairs=self.pairs,
            adapters=adapters,
            auxiliary=copy.deepcopy(self.auxiliary),
        )

    def batches(
        self, data: Data, engine: Engine, cache: Cache | None
    ) -> tuple[DistillationBatches | TwoViews, DistillationBatches]:
        """Return the batches of the train split and of the validation split."""
        teacher = self._frozen_teacher(engine, cache)
        frozen_part = self._frozen_part(engine, cache)
        begin = self.part.segment.begin if self.part else None
        taps = [pair.teacher for pair in self.pairs]
        kept = partial(kept_on, device=engine.device, where=self.training.images_on)
        split, val = kept(self.train_split(data)), kept(data.val)
        mixing = mixing_of(self.training, len(data.spec.classes))
        looks = teacher is not None or frozen_part is not None
        views = self.training.recurring_views if looks else self.training.views or 0
        if self.training.cache == "on" and looks and not views and split.augmented:
            say_once("--cache on: with --views 0 every epoch has new images, so that no output can be read back")
        whole = self.training.sampling == "each"
        weak = DistillationBatches(
            split, engine, teacher, self.logits, taps, frozen_part, begin, views, mixing, whole=whole
        )
        train: DistillationBatches | TwoViews = weak
        if self.objective is not None and self.objective.two_views:
            changed = kept(data.with_augmentation(STRONG, data.spec.erase).train)
            train = TwoViews(weak, dataclasses.replace(weak, split=changed, kept_as=f"{split.name}-strong"))
        if self.validates == "accuracy":
            return train, DistillationBatches(val, engine, student=frozen_part, begin=begin)
        return train, DistillationBatches(val, engine, teacher, self.logits, taps, frozen_part, begin)

    def train_split(self, data: Data) -> Split:
        """Return the train split, without the images that have no label if the loss is the labels' cross-entropy.

        Raises:
            UsageError: there are images without a label or mixtures, and the loss has no meaning for them, or it
                compares two views that would be the same.
        """
        if self.objective is None:
            return data.train.labelled()
        option, without = self.training.mixture
        if self.training.mixes and self.objective.needs_labels() and not self.objective.only_labels:
            raise UsageError(
                f"{option}: {self.objective.name} needs the one label of every image, which a mixture has not; "
                f"{without}, or use a loss that does without, such as kd"
            )
        if self.training.mixes and self.objective.two_views:
            raise UsageError(
                f"{option}: {self.objective.name} compares two views of the same image, which would be mixed with "
                f"different ones; {without}"
            )
        if self.objective.two_views and data.spec.augment == STRONG:
            raise UsageError(
                f"--augment rand: {self.objective.name} compares an image with what RandAugment makes of it, and "
                "both views would be the same; use --augment standard"
            )
        if data.train.unlabelled and self.objective.needs_labels():
            raise UsageError(
                f"--unlabelled: {self.objective.name} needs the label of every image; use a loss that does without, "
                "such as kd"
            )
        return data.train

    def _frozen_teacher(self, engine: Engine, cache: Cache | None) -> FrozenNetwork | None:
        if self.teacher is None or not (self.logits or self.pairs):
            return None
        key = digest(self.teacher.module)
        cut = self._segments_of_teacher(key) if self.pairs else ()
        names = {segment.end.name for segment in cut if segment.end} | {pair.teacher.name for pair in self.pairs}
        keys = {name: key for name in (*names, LOGITS)}
        return FrozenNetwork(copy.deepcopy(self.teacher.module), keys, engine, cache, cut=cut)

    def _segments_of_teacher(self, key: str) -> list[Segment]:
        """Return the teacher cut at the ends of its stages, so that each map is computed from the one before it.

        Empty where an objective watches a layer that is not the end of a stage, or where the teacher has no stages, as
        several networks together. ``key`` is the teacher's `digest`.
        """
        assert self.teacher is not None
        try:
            taps = stage_taps(self.teacher)
        except Error:
            return []
        watched: list[Tap] = [pair.teacher for pair in self.pairs]
        if not all(tap in taps for tap in watched):
            return []
        known, cut = _CUTS.get(self.teacher.module, ("", []))
        if known != key:
            cut = segments(self.teacher, cuttable(self.teacher, taps))
            _CUTS[self.teacher.module] = key, cut
        ends = [segment.end for segment in cut]
        return cut if all(tap in ends for tap in watched) else []

    def _frozen_part(self, engine: Engine, cache: Cache | None) -> FrozenNetwork | None:
        """Return the frozen part of the student, in front of the part that learns; None where there is none."""
        part = self.part
        if part is None or part.segment.begin is None:
            return None
        weights = self.student.module.state_dict()
        keys, owners = {}, set()
        for segment, learnt in zip(part.cut[: part.index], part.learnt, strict=False):
            owners |= {name.rpartition(".")[0] for name in learnt}
            before = {name: tensor for name, tensor in weights.items() if name.rpartition(".")[0] in owners}
            assert segment.end is not None
            keys[segment.end.name] = digest(self.student.module, before)
        return FrozenNetwork(copy.deepcopy(self.student.module), keys, engine, cache, cut=part.cut)


# Teachers that were cut, since each of many phases has the same one: the digest of the weights, and the segments.
_CUTS: weakref.WeakKeyDictionary[nn.Module, tuple[str, list[Segment]]] = weakref.WeakKeyDictionary()


def check_teacher(objective: Objective, student: Network, teacher: Network) -> None:
    """Check that an objective needs only the logits of a teacher of which nothing else is known.

    Raises:
        UsageError: it compares layers, or reads the teacher's classifier.
    """
    if not is_opaque(teacher.module):
        return
    try:
        reads = objective.needs_classifier() or bool(objective.watch(student, teacher))
    except (Error, *FAILURES):  # it looks for layers that are not there
        reads = True
    if reads:
        check_transparent(teacher.module, f"{objective.name} reads its layers")


def restored(
    finished: dict[str, Any], trained: Network, auxiliary: Auxiliary | None, callbacks: Sequence[Callback]
) -> Fit:
    """Return the result of a phase from its file, and give the callbacks back what they remembered."""
    load_exactly(trained.module.eval(), finished["weights"])
    for callback, state in zip(callbacks, finished["callbacks"], strict=True):
        callback.load(state)
    if auxiliary is None:
        return Fit(trained, finished["metrics"])
    others = copy.deepcopy(auxiliary.module).eval()
    load_exactly(others, finished["auxiliary"])
    return Fit(trained, finished["metrics"], others)
