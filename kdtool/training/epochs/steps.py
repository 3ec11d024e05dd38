"""The steps of an epoch: forward and backward passes, the optimiser, and what looks on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdtool.data.raw import UNLABELLED
from kdtool.errors import Error
from kdtool.training.callback import Callback
from kdtool.training.epochs.learner import Learner, whole_step, without_graph
from kdtool.training.epochs.recorded import RecordedSteps
from kdtool.training.optimization.skew import epoch_order
from kdtool.training.sharing.shares import shares
from kdtool.utils.processes import count, rank, summed
from kdtool.utils.progress import Advance, say_once
from kdtool.utils.seeds import derive, set_seed

if TYPE_CHECKING:
    from kdtool.training.balance import Balance
    from kdtool.training.batches import DistillationBatches
    from kdtool.training.optimization.updates import Updates
    from kdtool.training.sharing.replicas import Replica
    from kdtool.training.step import Step
    from kdtool.training.threads import Threads
    from kdtool.training.two_views import TwoViews

# On an accelerator every look at the loss waits for the queue, and in several processes for all of them; else it costs
# nothing.
STEPS_BETWEEN_LOOKS = 50

# How many seconds a phase has to take for a line about its threads.
WORTH_A_LINE = 20.0


class LossNotFiniteError(Error):
    """The loss became infinite or not a number."""


def leaves_one(images: int, batch_size: int) -> bool:
    """Return whether one image is left over at the end of an epoch.

    It takes no step, since batch-norm has no statistics of it; in another order it is in a batch.
    """
    return images > batch_size > 1 and images % batch_size == 1


class Steps:
    """Train a learner on its share of the images, one epoch after the other.

    The order of the images and every random number of an epoch depend on the seed, the phase's name (see
    `FitPlan.drawn_as`), the epoch and the number of the process alone.
    """

    def __init__(self, learner: Learner, train: DistillationBatches | TwoViews) -> None:
        """Divide the images of ``train`` into steps, and each step into the passes of this process."""
        self.learner, self.train = learner, train
        self.plan, self.engine, self.callbacks = learner.plan, learner.engine, learner.callbacks
        training = self.plan.training
        self.passes = shares(len(train), training.batch_size, training.accumulate, rank(), count())
        self.own = [single for step in self.passes for single in step]
        self.leaves_one = leaves_one(len(train), training.batch_size)
        self.recorded = RecordedSteps(learner, self.passes)
        self.reading = any(
            callback.reads_step and type(callback).after_step is not Callback.after_step for callback in self.callbacks
        )

    def __len__(self) -> int:
        """Return the steps that an epoch takes."""
        return len(self.passes) - self.leaves_one

    def train_epoch(
        self, replica: Replica, updates: Updates, threads: Threads, balance: Balance, epoch: int, shown: Advance
    ) -> float:
        """Train for one epoch and return its mean loss; a callback may end it earlier.

        ``epoch`` counts from 0; ``shown`` moves the progress bar.

        Raises:
            LossNotFiniteError: the loss is not a finite number.
        """
        training, engine = self.plan.training, self.engine
        seed = (training.seed, self.plan.drawn_as, epoch)
        set_seed(derive(*seed), engine.device)
        order = epoch_order(training.sampling, self.train.split.labels)
        if count() > 1:  # all processes have the same order, but not the same dropout
            set_seed(derive(*seed, rank()), engine.device)
        batches = self.train.batches(
            [single.stop - single.start for single in self.own],
            order=torch.cat([order[:0], *(order[single.start : single.stop] for single in self.own)]),
            view=self.train.view(epoch),
        )
        looks = 1 if engine.device.type == "cpu" and count() == 1 else STEPS_BETWEEN_LOOKS
        self.learner.student.train()
        self.recorded.begin(epoch)
        total = torch.zeros((), device=engine.device)
        threads.start()
        for number, passes in enumerate(self.passes, start=1):
            if number > len(self):
                next(batches)  # it is read all the same, so that the cache of its view is complete
                continue
            known = self._known(order, number)
            seen: list[Step] = []
            for single in passes:
                last, whole = single is passes[-1], single.weight == 1
                batch = next(batches)
                done = None if balance.is_due(epoch, number) else self.recorded.run(batch)
                with replica.exchanging(last):
                    loss = replica(batch, epoch, known) if done is None else done
                    total += loss.detach() if whole else loss.detach() * single.weight
                    assert self.learner.seen is not None
                    if last or self.reading:
                        seen.append(self.learner.seen if last else without_graph(self.learner.seen))
                    if last and (number % looks == 0 or number == len(self)):
                        mean = self._mean(total, number, epoch)
                        shown(looks, f"epoch {epoch + 1}/{training.epochs}  loss {mean:.3f}")
                    if done is None:
                        if last:
                            balance.look(seen[-1], loss, number)
                        engine.backward(loss if whole else loss * (single.weight * count()))
                    del loss  # no recording begins while the graph of a step before it is alive
            self._update(updates, seen)
            if threads.tick():
                self._say_threads(threads, epoch)
            if any(callback.over for callback in self.callbacks):
                return self._mean(total, number, epoch)
        for _ in batches:  # there is none left; what was cached is complete
            pass
        return self._mean(total, len(self), epoch)

    def _update(self, updates: Updates, seen: Sequence[Step]) -> None:
        """Take a step of the optimiser, after the backward passes that ``seen`` are."""
        module = self.learner.student.module
        for callback in self.callbacks:
            callback.before_step(module)
        updates.step()
        step = whole_step(seen) if self.reading and (len(seen) > 1 or count() > 1) else seen[-1]
        for callback in self.callbacks:
            callback.after_step(module, step)
        updates.end_step()

    def _known(self, order: Tensor, number: int) -> float | None:
        """Return which part of the images of a step has a label; None where this process sees all of them at once.

        ``order`` is that of the images of the epoch; steps count from 1.
        """
        alone = count() == 1 and self.plan.training.accumulate == 1
        if alone or not self.learner.unlabelled:
            return None
        size = self.plan.training.batch_size
        images = order[(number - 1) * size : number * size]
        return float((self.train.split.labels[images] != UNLABELLED).float().mean())

    def _mean(self, total: Tensor, steps: int, epoch: int) -> float:
        """Return the mean loss of ``steps`` steps of all processes.

        Raises:
            LossNotFiniteError: it is not finite.
        """
        whole = summed(total).item()
        if not math.isfinite(whole):
            raise LossNotFiniteError(
                f"{self.plan.name}: the loss is not finite in epoch {epoch + 1}, step {steps} of {len(self)}; "
                f"{self.remedy()}"
            )
        return whole / steps

    def remedy(self) -> str:
        """Return what a user can do if the loss is not finite."""
        named = next((callback.remedy for callback in self.callbacks if callback.remedy), "")
        limit = self.plan.training.clip
        clip = None if limit is None else limit.norm
        return named or f"try a lower --lr, or --clip {1 if clip is None or clip > 1 else clip / 10:g}"

    def _say_threads(self, threads: Threads, epoch: int) -> None:
        """Say how many threads compute, if the phase takes so long that this matters."""
        steps = len(self) * (self.plan.training.epochs - epoch)
        if steps * threads.seconds > WORTH_A_LINE:
            why = f"{threads.speedup:.2f}x as fast as with one" if threads.count > 1 else "no slower than with more"
            say_once(f"computes with {threads.count} of {threads.before} threads, {why} (--threads N: with N)")
