"""The one training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from kdtool.data import Data
from kdtool.engine import Engine
from kdtool.errors import Error
from kdtool.evaluation import evaluate
from kdtool.progress import Advance, progress
from kdtool.seeds import derive
from kdtool.settings import Training
from kdtool.teacher_cache import FrozenTeacher
from kdtool.weights import load_exactly

# On an accelerator every look at the loss waits for the queue; on the CPU it costs nothing.
STEPS_BETWEEN_LOOKS = 50


class LossNotFiniteError(Error):
    """The loss became infinite or not a number."""


@dataclass
class Step:
    """One batch as a loss sees it.

    ``student`` and ``teacher`` are logits [batch, classes] in float32 (the teacher's without gradient),
    ``target`` the class indices [batch], ``images`` [batch, channels, height, width]; ``epoch`` counts from 0.
    """

    student: Tensor
    target: Tensor
    images: Tensor
    teacher: Tensor
    epoch: int = 0
    epochs: int = 1
    label_smoothing: float = 0.0

    def cross_entropy(self) -> Tensor:
        """Return the mean cross-entropy against the labels, smoothed as the training options say."""
        return F.cross_entropy(self.student, self.target, label_smoothing=self.label_smoothing)


class Store(Protocol):
    """Where a phase keeps what it needs to go on after a kill."""

    def load(self) -> dict[str, Any] | None:
        """Return the last saved state, or None."""

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save the state, if it is time to."""

    def log(self, row: dict[str, Any]) -> None:
        """Keep the metrics of an epoch."""


@dataclass
class State:
    """How far a phase has come, and the best of it so far."""

    epoch: int = 0
    best_epoch: int = -1
    best: dict[str, Any] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def better(self, metrics: dict[str, Any]) -> bool:
        """Whether validation is better than ever: by accuracy, and by the loss where that is equal."""
        if not self.best:
            return True
        now = (metrics["accuracy"], -metrics["loss"])
        return now > (self.best["accuracy"], -self.best["loss"])


class Loop:
    """Train one network on one data set with one loss.

    The order of the images, their augmentation and every random number of an epoch depend on the seed, the
    phase's name and the epoch alone: an epoch that is repeated after a kill repeats exactly.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        data: Data,
        training: Training,
        engine: Engine,
        loss: Callable[[Step], Tensor],
        store: Store,
        teacher: FrozenTeacher | None = None,
        constraint: Callable[[nn.Module], None] | None = None,
    ) -> None:
        """Prepare; ``constraint`` is called with the module after every step."""
        self.module = engine.place(module)
        self.name, self.data, self.training, self.engine = name, data, training, engine
        self.loss, self.store, self.teacher, self.constraint = loss, store, teacher, constraint
        self.steps = math.ceil(len(data.train) / training.batch_size)
        raw = make_optimizer(module, training)
        self.schedule = make_schedule(raw, training, self.steps * training.epochs)
        self.optimizer = engine.prepare(raw)
        self.state = State()

    def run(self) -> dict[str, Any]:
        """Train, leave the module with the weights that validated best, and return those metrics.

        Raises:
            LossNotFiniteError: the loss is not a finite number.
        """
        self._restore()
        self.data.train.prepare()
        self.data.val.prepare()
        bar = progress(self.name, self.training.epochs * self.steps)
        with self.engine.threads(), bar as advance:
            advance(self.state.epoch * self.steps)
            while self.state.epoch < self.training.epochs and not self._out_of_patience():
                self._one_epoch(advance)
                self.store.save(self._snapshot)
        if self.state.best_weights:
            load_exactly(self.module, self.state.best_weights)
        self.module.to(device="cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.module.eval()
        return {**self.state.best, "epochs": self.state.epoch, "best_epoch": self.state.best_epoch + 1}

    def _out_of_patience(self) -> bool:
        patience = self.training.patience
        return patience is not None and self.state.epoch - self.state.best_epoch > patience

    def _one_epoch(self, advance: Advance) -> None:
        state, started = self.state, time.perf_counter()
        rate = self.schedule.get_last_lr()[0]
        mean_loss = self._train_epoch(advance)
        metrics = evaluate(self.module, self.data.val, engine=self.engine)
        if state.better(metrics):
            state.best, state.best_epoch = metrics, state.epoch
            state.best_weights = copy.deepcopy(self.module.state_dict())
        state.epoch += 1
        self.store.log(
            {
                "phase": self.name,
                "epoch": state.epoch,
                "loss": mean_loss,
                "val_loss": metrics["loss"],
                "val_accuracy": metrics["accuracy"],
                "lr": rate,
                "seconds": round(time.perf_counter() - started, 3),
            }
        )

    def _train_epoch(self, advance: Advance) -> float:
        training, engine, epoch = self.training, self.engine, self.state.epoch
        torch.manual_seed(derive(training.seed, self.name, epoch))
        view = self._view()
        taught = self.teacher.epoch(view) if self.teacher is not None else None
        batches = self.data.train.batches(
            training.batch_size,
            order=torch.randperm(len(self.data.train)),
            view=view,
            device=engine.device,
            channels_last=engine.channels_last,
        )
        looks = 1 if engine.device.type == "cpu" else STEPS_BETWEEN_LOOKS
        self.module.train()
        total = torch.zeros((), device=engine.device)
        for number, (indices, images, target) in enumerate(batches, start=1):
            teacher = taught(indices, images) if taught is not None else torch.empty(0)
            if len(indices) == 1 and self.steps > 1:
                continue  # batch-norm has no statistics of one image; another order will have it in a batch
            with engine.autocast():
                student = self.module(images)
            loss = self.loss(
                Step(student.float(), target, images, teacher, epoch, training.epochs, training.label_smoothing)
            )
            total += loss.detach()
            if number % looks == 0 or number == self.steps:
                self._check_finite(total, number)
                note = f"epoch {epoch + 1}/{training.epochs}  loss {total.item() / number:.3f}"
                advance(looks, note + self._validated())
            engine.backward(loss)
            if training.clip is not None:
                engine.accelerator.clip_grad_norm_(self.module.parameters(), training.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.step()
            if self.constraint is not None:
                self.constraint(self.module)
        if taught is not None:
            taught.close()
        return total.item() / self.steps

    def _view(self) -> int | None:
        """The augmentation of this epoch: a new one, or one of the few that a teacher has seen."""
        if self.data.spec.augment == "none":
            return None
        if self.teacher is None or self.training.views == 0:
            return self.state.epoch
        return self.state.epoch % self.training.views

    def _validated(self) -> str:
        return f"  val {self.state.best['accuracy']:.4f}" if self.state.best else ""

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
            load_exactly(self.module, saved["weights"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])

    def _snapshot(self) -> dict[str, Any]:
        return {
            "state": vars(self.state),
            "weights": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }


def make_optimizer(module: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return the optimiser, fused: on small networks its own arithmetic is what a step costs."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=training.lr,
            momentum=training.momentum,
            nesterov=training.momentum > 0,
            weight_decay=training.weight_decay,
            fused=True,
        )
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    return kind(parameters, lr=training.lr, weight_decay=training.weight_decay, fused=True)


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
