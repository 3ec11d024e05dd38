"""What one phase is about: who learns which part of itself from whom, and what each step is given."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from kdtool.data.splits import Data, Split
from kdtool.errors import UsageError
from kdtool.features.pairs import Pair
from kdtool.features.segments import Part, Segment, cuttable, segments
from kdtool.features.taps import Tap, stage_taps
from kdtool.models.architecture import Network
from kdtool.models.checkpoint import fingerprint
from kdtool.training.batches import DistillationBatches
from kdtool.training.engine import Engine
from kdtool.training.frozen_network import LOGITS, FrozenNetwork
from kdtool.training.options import Training
from kdtool.training.output_cache import Cache
from kdtool.training.student import Auxiliary, StudentModule
from kdtool.utils.seeds import derive

if TYPE_CHECKING:
    from kdtool.training.objective import Objective


class FitPlan:
    """A student, perhaps a part of it, perhaps a teacher, and the distiller that compares them."""

    def __init__(
        self,
        name: str,
        student: Network,
        teacher: Network | None,
        objective: Objective | None,
        part: Part | None,
        training: Training,
        auxiliary: Auxiliary | None = None,
    ) -> None:
        """Plan; without an objective the teacher is not asked."""
        self.name, self.student, self.part, self.training = name, student, part, training
        self.objective, self.auxiliary = objective, auxiliary
        self.teacher = teacher if objective is not None else None
        if objective is not None and teacher is not None:
            objective.check(student, teacher)
        self.logits = objective is not None and objective.logits

    @property
    def networks(self) -> list[Network]:
        """What runs in a step: the student, and the teacher where it is asked."""
        return [self.student] if self.teacher is None else [self.student, self.teacher]

    @cached_property
    def pairs(self) -> Sequence[Pair]:
        """The layers that are watched."""
        if self.teacher is None or self.objective is None:
            return ()
        return tuple(self.objective.watch(self.student, self.teacher))

    @cached_property
    def key(self) -> str:
        """What tells this phase from another one of its name."""
        taught_by = fingerprint(self.teacher.module.state_dict()) if self.teacher is not None else ""
        weights = fingerprint(self.student.module.state_dict())
        # Where things are cached changes nothing of what comes out.
        training = {**self.training.as_data(), "cache": "", "cache_limit": 0}
        told: tuple[object, ...] = (training, self.objective, taught_by, weights, self.pairs, self.part)
        if self.auxiliary is not None:
            told = (*told, fingerprint(self.auxiliary.module.state_dict()), self.auxiliary.taps)
        return f"{derive(repr(told)):x}"

    def pupil(self, module: nn.Module) -> StudentModule:
        """Return the student's module as the loop sees it, with fresh adapters and a copy of what learns with it."""
        adapters: nn.Module | None = None
        if self.objective is not None:
            torch.manual_seed(derive(self.training.seed, self.name, "adapters"))
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

    def feeds(self, data: Data, engine: Engine, cache: Cache | None) -> tuple[DistillationBatches, DistillationBatches]:
        """Return the feeds of the train and the validation split."""
        teacher = self._frozen_teacher(engine, cache)
        begun = self._frozen_part(engine, cache)
        begin = self.part.segment.begin if self.part else None
        taps = [pair.teacher for pair in self.pairs]
        train = DistillationBatches(
            self._learnt(data), engine, teacher, self.logits, taps, begun, begin, self.training.views
        )
        if self.objective is None or self.objective.validates == "accuracy":
            return train, DistillationBatches(data.val, engine, student=begun, begin=begin)
        return train, DistillationBatches(data.val, engine, teacher, self.logits, taps, begun, begin)

    def _learnt(self, data: Data) -> Split:
        """Return what is learnt from: images without a label have nothing to say where the labels alone count.

        Raises:
            UsageError: there are some, and the loss has no meaning for them.
        """
        if self.objective is None:
            return data.train.labelled()
        if data.train.unlabelled and self.objective.needs_labels():
            raise UsageError(
                f"--unlabelled: {self.objective.name} needs the label of every image; use a loss that does without, "
                "such as kd"
            )
        return data.train

    def _frozen_teacher(self, engine: Engine, cache: Cache | None) -> FrozenNetwork | None:
        if self.teacher is None or not (self.logits or self.pairs):
            return None
        key = fingerprint(self.teacher.module.state_dict())
        cut = self._teachers_cut() if self.pairs else ()
        paths = {segment.end.path for segment in cut if segment.end} | {pair.teacher.path for pair in self.pairs}
        keys = {path: key for path in (*paths, LOGITS)}
        return FrozenNetwork(copy.deepcopy(self.teacher.module), keys, engine, cache, cut=cut)

    def _teachers_cut(self) -> list[Segment]:
        """Cut the teacher at the ends of its stages, so that the map of one is computed from that of the one before."""
        assert self.teacher is not None
        taps = stage_taps(self.teacher)
        watched: list[Tap] = [pair.teacher for pair in self.pairs]
        if not all(tap in taps for tap in watched):
            return []
        left = cuttable(self.teacher, taps)
        return segments(self.teacher, left) if all(tap in left for tap in watched) else []

    def _frozen_part(self, engine: Engine, cache: Cache | None) -> FrozenNetwork | None:
        """Return the student before the part that learns."""
        part = self.part
        if part is None or part.segment.begin is None:
            return None
        weights = self.student.module.state_dict()
        keys, owners = {}, set()
        for segment, learnt in zip(part.cut[: part.index], part.learnt, strict=False):
            owners |= {name.rpartition(".")[0] for name in learnt}
            before = {name: tensor for name, tensor in weights.items() if name.rpartition(".")[0] in owners}
            assert segment.end is not None
            keys[segment.end.path] = fingerprint(before)
        return FrozenNetwork(copy.deepcopy(self.student.module), keys, engine, cache, cut=part.cut)
