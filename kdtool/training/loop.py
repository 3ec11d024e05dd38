"""The one training loop."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdtool.errors import UsageError
from kdtool.models.memory_format import as_saved
from kdtool.models.weights import load_exactly
from kdtool.training.balance import Balance
from kdtool.training.batches import DistillationBatches
from kdtool.training.callback import VALIDATION, Callback, logged_by
from kdtool.training.engine import Engine
from kdtool.training.epochs.learner import Learner
from kdtool.training.epochs.steps import LossNotFiniteError, Steps
from kdtool.training.epochs.validation import validate
from kdtool.training.optimization.activations import recomputing_activations
from kdtool.training.optimization.compiled import compiling
from kdtool.training.optimization.drop_path import dropping_paths
from kdtool.training.optimization.false_sharing import without_false_sharing
from kdtool.training.optimization.fast_convolutions import convolutions, fast_convolutions
from kdtool.training.optimization.skew import class_weights
from kdtool.training.optimization.updates import Updates
from kdtool.training.phase import Store
from kdtool.training.plan import FitPlan
from kdtool.training.sharing.replicas import Replica, agree_on_statistics, synchronised_norms
from kdtool.training.sharing.shares import check_shares
from kdtool.training.state import State
from kdtool.training.student import StudentModule
from kdtool.training.two_views import TwoViews
from kdtool.utils.processes import decided, rank
from kdtool.utils.progress import Advance, progress
from kdtool.utils.seeds import forked
from kdtool.utils.uncompiled import optimizing


class Loop:
    """Train one network on one data set with one loss.

    The order of the images, their augmentation and every random number of an epoch depend on the seed, the
    phase's name and the epoch alone: an epoch that is repeated after a kill repeats exactly.
    """

    def __init__(
        self,
        student: StudentModule,
        plan: FitPlan,
        train: DistillationBatches | TwoViews,
        val: DistillationBatches,
        engine: Engine,
        store: Store,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Prepare the student, the optimiser and the callbacks; ``plan`` has the objective and the training options.

        Raises:
            UsageError: batches of one image are asked for, and the network or an adapter has batch-norm, or the batches
                cannot be shared by the processes.
        """
        training = plan.training
        check_shares(training.batch_size, training.accumulate)
        layers = [layer for part in (*student.learners(), student.adapters) for layer in part.modules()]
        if training.batch_size == 1 and any(isinstance(layer, _BatchNorm) for layer in layers):
            raise UsageError("--batch-size 1: batch-norm has no statistics of one image; use a larger --batch-size")
        student.place(engine)
        self.student, self.plan, self.training = student, plan, training
        self.train, self.val, self.engine, self.store, self.callbacks = train, val, engine, store, callbacks
        self.keeps_last = any(callback.keeps_last for callback in callbacks)
        weights = class_weights(training.class_weights, train.split)
        unlabelled = train.split.unlabelled > 0
        self.learner = Learner(student, plan, engine, callbacks, unlabelled=unlabelled, class_weights=weights)
        self.trainer = Steps(self.learner, train)
        self.steps = len(self.trainer)
        moved = {id(weight) for callback in callbacks for weight in callback.parameters(student.module)}
        learnt = [weight for weight in student.parameters() if id(weight) not in moved]
        # An average would not be what the last step left.
        self.updates = Updates(student, learnt, training, engine, self.steps, averaged=not self.keeps_last)
        self.state, self.threads = State(), engine.threads(shared=True)
        self.balance = Balance(plan, student.module, engine, self.steps, callbacks)
        for callback in callbacks:
            callback.begin(student.module, self.steps, training.epochs)

    @optimizing()
    def run(self) -> dict[str, Any]:
        """Train, leave the module with the weights that validated best, and return those metrics.

        torch's global random state is left as it was.

        Raises:
            LossNotFiniteError: the loss is not a finite number.
        """
        self._restore()
        self.train.split.prepare()
        self.val.split.prepare()
        bar = progress(self.plan.name, self.training.epochs * self.steps)
        with contextlib.ExitStack() as stack:
            modules = list(self.student.learners())
            stack.enter_context(forked(self.engine.device))
            stack.enter_context(self.threads)
            stack.enter_context(self.student.frozen())
            stack.enter_context(dropping_paths(modules, self.training.drop_path))
            if self.engine.fast_layers:
                stack.enter_context(fast_convolutions(itertools.chain.from_iterable(map(convolutions, modules))))
                stack.enter_context(without_false_sharing(modules))
            if self.training.checkpoint_activations:
                stack.enter_context(recomputing_activations(modules, self.plan.student.architecture.spec))
            stack.enter_context(synchronised_norms(modules, self.training.sync_batchnorm))
            if self.training.compile:
                images = max(single.stop - single.start for single in self.trainer.own)
                shape = (images, *self.plan.student.architecture.input)
                stack.enter_context(compiling(self.student, self.engine, shape))
            advance = stack.enter_context(bar)
            replica = Replica(self.learner)
            advance(self.state.epoch * self.steps)
            while self.state.epoch < self.training.epochs and not self._is_over():
                self._one_epoch(replica, advance)
                if rank() == 0:
                    self.store.save(self._snapshot)
        if self.state.epoch and not self.state.best_weights:
            raise LossNotFiniteError(
                f"{self.plan.name}: the loss on the validation split or the weights are not finite in any epoch; "
                f"{self.trainer.remedy()}"
            )
        best = (self.state.best_weights, self.state.best_auxiliary)
        for module, weights in zip(self.student.learners(), best, strict=True):
            if self.state.best_weights:
                load_exactly(module, weights)
            as_saved(module)
            module.eval()
        return {**self.state.best, "epochs": self.state.epoch, "best_epoch": self.state.best_epoch + 1}

    def _is_over(self) -> bool:
        if any(callback.over for callback in self.callbacks):
            return True
        patience = self.training.patience
        return patience is not None and self.state.epoch - self.state.best_epoch > patience and not self.keeps_last

    def _one_epoch(self, replica: Replica, advance: Advance) -> None:
        state, started = self.state, time.perf_counter()
        rate = self.updates.rate
        mean_loss = self._train_epoch(replica, advance)
        agree_on_statistics(self.student.learners())  # what callbacks keep has those of all processes
        self.threads.end_epoch((time.perf_counter() - started) / self.steps)
        logged: dict[str, Any] = {**self.balance.logged(state.epoch)}
        for callback in self.callbacks:
            logged |= logged_by(callback, self.student.module, state.epoch + 1)
        logged |= self._keep_better(self._validate())
        with self.updates.averaged() as averaged:
            if averaged:
                better = self._keep_better({**self._validate(), "averaged": True})
                logged |= {f"{name}_averaged": value for name, value in better.items()}
        state.epoch += 1
        self.store.log(
            {
                "phase": self.plan.name,
                "epoch": state.epoch,
                "loss": mean_loss,
                **logged,
                "lr": rate,
                "threads": self.threads.count,
                "seconds": round(time.perf_counter() - started, 3),
            }
        )

    def _keep_better(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Keep the present weights if these metrics of theirs are the best so far, and return what is logged of them.

        Raises:
            LossNotFiniteError: the loss or the weights are not finite, and what the last step left is wanted.
        """
        state = self.state
        # An activation may turn NaN into 0, so that weights that are not finite give a loss that is.
        finite = math.isfinite(metrics["loss"]) and all(map(has_finite_weights, self.student.learners()))
        if not finite and self.keeps_last:
            raise LossNotFiniteError(
                f"{self.plan.name}: the loss on the validation split or the weights are not finite after epoch "
                f"{state.epoch + 1}; {self.trainer.remedy()}"
            )
        if finite and (self.keeps_last or state.better(metrics, self.training.select.replace("-", "_"))):
            state.best, state.best_epoch = metrics, state.epoch
            state.best_weights, state.best_auxiliary = (
                copy.deepcopy(module.state_dict()) for module in self.student.learners()
            )
        measured = ("loss", "accuracy", "balanced_accuracy")
        return {f"{VALIDATION}{key}": metrics[key] for key in measured if key in metrics}

    def _train_epoch(self, replica: Replica, advance: Advance) -> float:
        shown = self._advance(advance)
        return self.trainer.train_epoch(replica, self.updates, self.threads, self.balance, self.state.epoch, shown)

    def _validate(self) -> dict[str, Any]:
        return validate(self.learner, self.val, len(self.train), self.state.epoch)

    def _advance(self, advance: Advance) -> Advance:
        """Return what moves the progress bar and shows the best validation so far behind its note."""
        best = self.state.best
        loss = f"  val loss {best['loss']:.4f}" if best else ""
        shown = f"  val {best['accuracy']:.4f}" if "accuracy" in best else loss
        return lambda steps=1, note="": advance(steps, note + shown)

    def _restore(self) -> None:
        saved = decided(self.store.load)
        if saved is not None:
            self.state = State(**saved["state"])
            self.student.load(saved)
            self.updates.load(saved)
            self.threads.load(saved["threads"])
            # A run of an older release does not know of the zeros of teachers, which come last and remember nothing.
            states = saved["callbacks"]
            added: list[dict[str, Any]] = [{} for callback in self.callbacks[len(states) :] if not callback.state()]
            for callback, state in zip(self.callbacks, [*states, *added], strict=True):
                callback.load(state)

    def _snapshot(self) -> dict[str, Any]:
        return {
            "state": vars(self.state),
            **self.student.state(),
            **self.updates.state(),
            "threads": self.threads.state(),
            "callbacks": [callback.state() for callback in self.callbacks],
        }


def has_finite_weights(module: nn.Module) -> bool:
    """Return whether every parameter of a module is a finite number; a device is waited for once."""
    weights = [parameter.detach() for parameter in module.parameters()]
    return not weights or bool(torch.stack([weight.isfinite().all() for weight in weights]).all())


def portable(callbacks: Sequence[Callback], module: nn.Module) -> nn.Module:
    """Return a module as a checkpoint can hold it, after what the callbacks put into it (see `Callback.result`)."""
    for callback in callbacks:
        module = callback.result(module)
    return module
