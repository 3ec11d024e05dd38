"""The one training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdtool.errors import Error, UsageError
from kdtool.models.memory_format import as_saved
from kdtool.models.weights import load_exactly
from kdtool.training.balance import Balance
from kdtool.training.batches import Batch, DistillationBatches
from kdtool.training.callback import Callback
from kdtool.training.engine import Engine
from kdtool.training.evaluate import VALIDATION_BATCH, images_for_a_loss, score
from kdtool.training.optimization.drop_path import dropping_paths
from kdtool.training.optimization.updates import Updates
from kdtool.training.phase import Store
from kdtool.training.plan import FitPlan
from kdtool.training.state import State
from kdtool.training.step import Step
from kdtool.training.student import StudentModule
from kdtool.training.two_views import TwoViews
from kdtool.utils.progress import Advance, progress, say_once
from kdtool.utils.seeds import derive, forked, set_seed
from kdtool.utils.uncompiled import optimizing

# On an accelerator every look at the loss waits for the queue; on the CPU it costs nothing.
STEPS_BETWEEN_LOOKS = 50

# How many seconds a phase has to take for a line about its threads.
WORTH_A_LINE = 20.0


class LossNotFiniteError(Error):
    """The loss became infinite or not a number."""


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
            UsageError: batches of one image are asked for, and the network has batch-norm.
        """
        training = plan.training
        layers = [layer for learner in student.learners() for layer in learner.modules()]
        if training.batch_size == 1 and any(isinstance(layer, _BatchNorm) for layer in layers):
            raise UsageError("--batch-size 1: batch-norm has no statistics of one image; use a larger --batch-size")
        student.place(engine)
        self.student, self.plan, self.training = student, plan, training
        self.train, self.val, self.engine, self.store, self.callbacks = train, val, engine, store, callbacks
        self.keeps_last = any(callback.keeps_last for callback in callbacks)
        self.classifier = None if plan.classifier is None else plan.classifier.to(engine.device)
        self.steps = math.ceil(len(train) / training.batch_size)
        moved = {id(weight) for callback in callbacks for weight in callback.parameters(student.module)}
        learnt = [weight for weight in student.parameters() if id(weight) not in moved]
        # An average would not be what the last step left.
        self.updates = Updates(student, learnt, training, engine, self.steps, averaged=not self.keeps_last)
        self.state, self.threads = State(), engine.threads()
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
        dropping = dropping_paths(self.student.module, self.training.drop_path)
        with forked(self.engine.device), self.threads, self.student.frozen(), dropping, bar as advance:
            advance(self.state.epoch * self.steps)
            while self.state.epoch < self.training.epochs and not self._is_over():
                self._one_epoch(advance)
                self.store.save(self._snapshot)
        if self.state.epoch and not self.state.best_weights:
            raise LossNotFiniteError(
                f"{self.plan.name}: the loss on the validation split is not finite in any epoch; {self._remedy()}"
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

    def _one_epoch(self, advance: Advance) -> None:
        state, started = self.state, time.perf_counter()
        rate = self.updates.rate
        mean_loss = self._train_epoch(advance)
        self.threads.end_epoch((time.perf_counter() - started) / self.steps)
        logged: dict[str, Any] = {**self.balance.logged(state.epoch)}
        for callback in self.callbacks:
            logged |= callback.after_epoch(self.student.module, state.epoch + 1)
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
            LossNotFiniteError: the loss is not finite, and what the last step left is wanted.
        """
        state, finite = self.state, math.isfinite(metrics["loss"])
        if not finite and self.keeps_last:
            raise LossNotFiniteError(
                f"{self.plan.name}: the loss on the validation split is not finite after epoch {state.epoch + 1}; "
                f"{self._remedy()}"
            )
        if finite and (self.keeps_last or state.better(metrics)):
            state.best, state.best_epoch = metrics, state.epoch
            state.best_weights, state.best_auxiliary = (
                copy.deepcopy(module.state_dict()) for module in self.student.learners()
            )
        accuracy = {"val_accuracy": metrics["accuracy"]} if "accuracy" in metrics else {}
        return {"val_loss": metrics["loss"], **accuracy}

    def _train_epoch(self, advance: Advance) -> float:
        training, engine, epoch = self.training, self.engine, self.state.epoch
        set_seed(derive(training.seed, self.plan.name, epoch), engine.device)
        order = torch.randperm(len(self.train))
        batches = self.train.batches(training.batch_size, order=order, view=self.train.view(epoch))
        looks = 1 if engine.device.type == "cpu" else STEPS_BETWEEN_LOOKS
        self.student.train()
        total = torch.zeros((), device=engine.device)
        self.threads.start()
        for number, batch in enumerate(batches, start=1):
            if len(batch.indices) == 1 < min(training.batch_size, self.steps):
                continue  # batch-norm has no statistics of one image; another order will have it in a batch
            step = self._step(batch)
            loss = self._loss(step)
            total += loss.detach()
            if number % looks == 0 or number == self.steps:
                self._check_finite(total, number)
                note = f"epoch {epoch + 1}/{training.epochs}  loss {total.item() / number:.3f}"
                advance(looks, note + self._validated())
            self.balance.look(step, loss, number)
            self.updates.step(loss)
            for callback in self.callbacks:
                callback.after_step(self.student.module, step)
            self.updates.end_step()
            if self.threads.tick():
                self._say_threads()
            if any(callback.over for callback in self.callbacks):
                return total.item() / number
        return total.item() / self.steps

    def _say_threads(self) -> None:
        """Say how many threads compute, if the phase takes so long that this matters."""
        threads = self.threads
        steps = self.steps * (self.training.epochs - self.state.epoch)
        if steps * threads.seconds > WORTH_A_LINE:
            say_once(
                f"computes with {threads.count} of {threads.before} threads, {threads.speedup:.2f}x as fast as with "
                "one (--threads N: with N)"
            )

    def _step(self, batch: Batch) -> Step:
        training = self.training
        with self.engine.autocast():
            student, maps, auxiliary = self.student(batch.inputs)
        return Step(
            student.float(),
            batch.target,
            batch.inputs,
            batch.teacher,
            self.state.epoch,
            training.epochs,
            training.label_smoothing,
            self.student.compare(maps, batch.maps),
            [pair.owner for pair in self.student.pairs],
            [output.float() for output in auxiliary],
            self.train.split.unlabelled > 0,
            self.classifier,
            batch.indices,
            batch.parts,
        )

    def _loss(self, step: Step) -> Tensor:
        """Return the objective's loss with the penalties of the callbacks."""
        loss = self.plan.loss(step)
        for callback in self.callbacks:
            penalty = callback.penalty(self.student.module)
            loss = loss if penalty is None else loss + penalty
        return loss

    @torch.no_grad()
    def _validate(self) -> dict[str, Any]:
        self.student.eval()
        if self.plan.validates == "accuracy":
            logits, labels = [], []
            for batch in self.val.batches(VALIDATION_BATCH):
                with self.engine.autocast():
                    logits.append(self.student.answer(batch.inputs).float().cpu())
                labels.append(batch.target.cpu())
            return score(torch.cat(logits), torch.cat(labels), self.val.split.name)
        total, chosen = 0.0, images_for_a_loss(len(self.val), len(self.train))
        for batch in self.val.batches(VALIDATION_BATCH, order=chosen):
            total += float(self.plan.loss(self._step(batch))) * len(batch.indices)
        return {"split": self.val.split.name, "loss": total / len(chosen), "images": len(chosen)}

    def _validated(self) -> str:
        best = self.state.best
        if not best:
            return ""
        return f"  val {best['accuracy']:.4f}" if "accuracy" in best else f"  val loss {best['loss']:.4f}"

    def _check_finite(self, total: Tensor, number: int) -> None:
        if not torch.isfinite(total):
            raise LossNotFiniteError(
                f"{self.plan.name}: the loss is not finite in epoch {self.state.epoch + 1}, step {number} of "
                f"{self.steps}; {self._remedy()}"
            )

    def _remedy(self) -> str:
        """Return what a user can do if the loss is not finite."""
        named = next((callback.remedy for callback in self.callbacks if callback.remedy), "")
        clip = None if self.training.clip is None else self.training.clip.norm
        return named or f"try a lower --lr, or --clip {1 if clip is None or clip > 1 else clip / 10:g}"

    def _restore(self) -> None:
        saved = self.store.load()
        if saved is not None:
            self.state = State(**saved["state"])
            self.student.load(saved)
            self.updates.load(saved)
            self.threads.load(saved["threads"])
            for callback, state in zip(self.callbacks, saved["callbacks"], strict=True):
                callback.load(state)

    def _snapshot(self) -> dict[str, Any]:
        return {
            "state": vars(self.state),
            **self.student.state(),
            **self.updates.state(),
            "threads": self.threads.state(),
            "callbacks": [callback.state() for callback in self.callbacks],
        }


def portable(callbacks: Sequence[Callback], module: nn.Module) -> nn.Module:
    """Return a module as a checkpoint can hold it, after what the callbacks put into it (see `Callback.result`)."""
    for callback in callbacks:
        module = callback.result(module)
    return module
