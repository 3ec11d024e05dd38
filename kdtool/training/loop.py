"""The one training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import lr_scheduler

from kdtool.errors import Error, UsageError
from kdtool.models.memory_format import as_saved
from kdtool.models.weights import load_exactly
from kdtool.training.batches import Batch, DistillationBatches
from kdtool.training.callback import Guide
from kdtool.training.engine import Engine
from kdtool.training.evaluate import VALIDATION_BATCH, score
from kdtool.training.options import Training
from kdtool.training.phase import Store
from kdtool.training.step import Step
from kdtool.training.student import StudentModule
from kdtool.utils.progress import Advance, progress
from kdtool.utils.seeds import derive
from kdtool.utils.uncompiled import optimizing, with_plain_step

# On an accelerator every look at the loss waits for the queue; on the CPU it costs nothing.
STEPS_BETWEEN_LOOKS = 50


class LossNotFiniteError(Error):
    """The loss became infinite or not a number."""


@dataclass
class State:
    """How far a phase has come, the best of it so far, and the weights after the epoch that is to be kept."""

    epoch: int = 0
    best_epoch: int = -1
    best: dict[str, Any] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    early_weights: dict[str, Tensor] = field(default_factory=dict)
    best_auxiliary: dict[str, Tensor] = field(default_factory=dict)

    def better(self, metrics: dict[str, Any]) -> bool:
        """Whether validation is better than ever: by accuracy, and by the loss where that is equal or there is none."""
        if not self.best:
            return True
        now = (metrics.get("accuracy", 0.0), -metrics["loss"])
        return now > (self.best.get("accuracy", 0.0), -self.best["loss"])


class Loop:
    """Train one network on one data set with one loss.

    The order of the images, their augmentation and every random number of an epoch depend on the seed, the
    phase's name and the epoch alone: an epoch that is repeated after a kill repeats exactly.
    """

    def __init__(
        self,
        pupil: StudentModule,
        *,
        name: str,
        train: DistillationBatches,
        val: DistillationBatches,
        training: Training,
        engine: Engine,
        loss: Callable[[Step], Tensor],
        store: Store,
        validates: str = "accuracy",
        constraint: Callable[[nn.Module], None] | None = None,
        penalty: Callable[[nn.Module], Tensor] | None = None,
        keep_epoch: int | None = None,
        guide: Guide | None = None,
    ) -> None:
        """Prepare; ``validates`` says whether the best epoch is that of the highest ``accuracy`` or of the least
        ``loss``, ``constraint`` is called with the module after every step, ``penalty`` returns what of the module
        itself is added to the loss of every step, ``keep_epoch`` is the epoch whose weights are kept beside the best,
        ``guide`` works beside the optimiser.

        Raises:
            UsageError: batches of one image are asked for, and the network has batch-norm.
        """
        layers = [layer for learner in pupil.learners() for layer in learner.modules()]
        if training.batch_size == 1 and any(isinstance(layer, _BatchNorm) for layer in layers):
            raise UsageError("--batch-size 1: batch-norm has no statistics of one image; use a larger --batch-size")
        pupil.place(engine)
        self.pupil, self.name, self.train, self.val = pupil, name, train, val
        self.training, self.engine, self.loss, self.store = training, engine, loss, store
        self.validates, self.constraint, self.penalty, self.keep_epoch = validates, constraint, penalty, keep_epoch
        self.guide = guide
        self.steps = math.ceil(len(train) / training.batch_size)
        guided = {id(one) for one in guide.own(pupil.module)} if guide is not None else set()
        with optimizing():
            raw = make_optimizer([one for one in pupil.parameters() if id(one) not in guided], training)
        self.schedule = make_schedule(raw, training, self.steps * training.epochs)
        self.optimizer = engine.prepare(raw)
        self.state = State()
        if guide is not None:
            guide.begin(pupil.module, self.steps, training.epochs)

    @optimizing()
    def run(self) -> dict[str, Any]:
        """Train, leave the module with the weights that validated best, and return those metrics.

        Raises:
            LossNotFiniteError: the loss is not a finite number.
        """
        self._restore()
        self.train.split.prepare()
        self.val.split.prepare()
        bar = progress(self.name, self.training.epochs * self.steps)
        with self.engine.threads(), self.pupil.frozen(), bar as advance:
            advance(self.state.epoch * self.steps)
            while self.state.epoch < self.training.epochs and not self._is_over():
                self._one_epoch(advance)
                self.store.save(self._snapshot)
        for module, best in zip(
            self.pupil.learners(), (self.state.best_weights, self.state.best_auxiliary), strict=True
        ):
            if self.state.best_weights:
                load_exactly(module, best)
            as_saved(module)
            module.eval()
        return {**self.state.best, "epochs": self.state.epoch, "best_epoch": self.state.best_epoch + 1}

    def _is_over(self) -> bool:
        if self.guide is not None:
            return self.guide.over
        patience = self.training.patience
        return patience is not None and self.state.epoch - self.state.best_epoch > patience

    def _one_epoch(self, advance: Advance) -> None:
        state, started = self.state, time.perf_counter()
        rate = self.schedule.get_last_lr()[0]
        mean_loss = self._train_epoch(advance)
        guided = {} if self.guide is None else self.guide.epoch_ended(self.pupil.module, state.epoch + 1)
        metrics = self._validate()
        if self.guide is not None or state.better(metrics):
            state.best, state.best_epoch = metrics, state.epoch
            state.best_weights, state.best_auxiliary = (
                copy.deepcopy(module.state_dict()) for module in self.pupil.learners()
            )
        state.epoch += 1
        if state.epoch == self.keep_epoch:
            state.early_weights = copy.deepcopy(self.pupil.module.state_dict())
        accuracy = {"val_accuracy": metrics["accuracy"]} if "accuracy" in metrics else {}
        self.store.log(
            {
                "phase": self.name,
                "epoch": state.epoch,
                "loss": mean_loss,
                "val_loss": metrics["loss"],
                **accuracy,
                **guided,
                "lr": rate,
                "seconds": round(time.perf_counter() - started, 3),
            }
        )

    def _train_epoch(self, advance: Advance) -> float:
        training, engine, epoch = self.training, self.engine, self.state.epoch
        torch.manual_seed(derive(training.seed, self.name, epoch))
        order = torch.randperm(len(self.train))
        batches = self.train.batches(training.batch_size, order=order, view=self.train.view(epoch))
        looks = 1 if engine.device.type == "cpu" else STEPS_BETWEEN_LOOKS
        self.pupil.train()
        total = torch.zeros((), device=engine.device)
        for number, batch in enumerate(batches, start=1):
            if len(batch.indices) == 1 < min(training.batch_size, self.steps):
                continue  # batch-norm has no statistics of one image; another order will have it in a batch
            step = self._step(batch)
            loss = self.loss(step)
            if self.penalty is not None:
                loss = loss + self.penalty(self.pupil.module)
            total += loss.detach()
            if number % looks == 0 or number == self.steps:
                self._check_finite(total, number)
                note = f"epoch {epoch + 1}/{training.epochs}  loss {total.item() / number:.3f}"
                advance(looks, note + self._validated())
            engine.backward(loss)
            if training.clip is not None:
                engine.accelerator.clip_grad_norm_(self.pupil.parameters(), training.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.step()
            if self.constraint is not None:
                self.constraint(self.pupil.module)
            if self.guide is not None:
                self.guide.step(self.pupil.module, step)
                if self.guide.over:
                    return total.item() / number
        return total.item() / self.steps

    def _step(self, batch: Batch) -> Step:
        training = self.training
        with self.engine.autocast():
            student, maps, auxiliary = self.pupil(batch.inputs)
        return Step(
            student.float(),
            batch.target,
            batch.inputs,
            batch.teacher,
            self.state.epoch,
            training.epochs,
            training.label_smoothing,
            self.pupil.compare(maps, batch.maps),
            [pair.owner for pair in self.pupil.pairs],
            [one.float() for one in auxiliary],
            self.train.split.unlabelled > 0,
        )

    @torch.no_grad()
    def _validate(self) -> dict[str, Any]:
        self.pupil.eval()
        if self.validates == "accuracy":
            logits, labels = [], []
            for batch in self.val.batches(VALIDATION_BATCH):
                with self.engine.autocast():
                    logits.append(self.pupil.answer(batch.inputs).float().cpu())
                labels.append(batch.target.cpu())
            return score(torch.cat(logits), torch.cat(labels), self.val.split.name)
        total = 0.0
        for batch in self.val.batches(VALIDATION_BATCH):
            total += float(self.loss(self._step(batch))) * len(batch.indices)
        return {"split": self.val.split.name, "loss": total / len(self.val), "images": len(self.val)}

    def _validated(self) -> str:
        best = self.state.best
        if not best:
            return ""
        return f"  val {best['accuracy']:.4f}" if "accuracy" in best else f"  val loss {best['loss']:.4f}"

    def _check_finite(self, total: Tensor, number: int) -> None:
        if not torch.isfinite(total):
            raise LossNotFiniteError(
                f"{self.name}: the loss is not finite in epoch {self.state.epoch + 1}, step {number} of {self.steps}"
                "; try a lower --lr, or --clip 1"
            )

    def _restore(self) -> None:
        saved = self.store.load()
        if saved is not None:
            self.state = State(**saved["state"])
            self.pupil.load(saved)
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            if self.guide is not None:
                self.guide.load(saved["guide"])

    def _snapshot(self) -> dict[str, Any]:
        return {
            "state": vars(self.state),
            **self.pupil.state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            **({} if self.guide is None else {"guide": self.guide.state()}),
        }


def make_optimizer(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """Return the optimiser, fused: on small networks its own arithmetic is what a step costs."""
    if training.optimizer == "sgd":
        return with_plain_step(torch.optim.SGD)(
            parameters,
            lr=training.lr,
            momentum=training.momentum,
            nesterov=training.momentum > 0,
            weight_decay=training.weight_decay,
            fused=True,
        )
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    return with_plain_step(kind)(parameters, lr=training.lr, weight_decay=training.weight_decay, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, training: Training, steps: int) -> lr_scheduler.LRScheduler:
    """Return the learning rate's schedule over ``steps`` steps of a phase."""
    steps = max(steps, 1)
    if training.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if training.schedule == "multi-step":
        milestones = [round(fraction * steps) for fraction in training.milestones]
        return lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    if training.schedule == "one-cycle":
        return lr_scheduler.OneCycleLR(optimizer, max_lr=training.lr, total_steps=max(steps, 2))
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)
