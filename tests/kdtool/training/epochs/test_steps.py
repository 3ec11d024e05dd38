"""Steps that several passes or processes share: the same result as in one, and what callbacks see of them."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import kdtool
from kdtool.data.raw import UNLABELLED
from kdtool.data.splits import Split
from kdtool.errors import UsageError
from kdtool.training.batches import DistillationBatches
from kdtool.training.callback import Callback
from kdtool.training.engine import Engine
from kdtool.training.epochs.steps import LossNotFiniteError, Steps
from kdtool.training.loop import Loop
from kdtool.training.options import Training
from kdtool.training.step import Step
from kdtool.training.student import StudentModule
from kdtool.utils import progress
from kdtool.utils.processes import rank, together
from kdtool.utils.seeds import derive, forked, set_seed


class Nowhere:
    """A store that keeps the log alone."""

    def __init__(self):
        self.rows = []

    def load(self):
        return None

    def save(self, state):
        pass

    def log(self, row):
        self.rows.append(row)


def network(*, batch_norm=False):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(16) if batch_norm else nn.Identity()
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), norm, nn.ReLU(), nn.Linear(16, 10))


def train(data, module, callbacks=(), loss=Step.cross_entropy, validates="accuracy", **options):
    """Train a network, and return the log."""
    training = Training(**{"epochs": 2, "lr": 1e-2, "precision": "fp32", "device": "cpu", **options})
    engine, store = Engine(training, 0), Nowhere()
    plan = SimpleNamespace(
        name="phase", drawn_as="phase", training=training, loss=loss, validates=validates, classifier=None,
        objective=None,
        student=SimpleNamespace(architecture=SimpleNamespace(spec="test:network", input=(1, 8, 8))),
    )  # fmt: skip
    batches = [DistillationBatches(split, engine) for split in (data.train, data.val)]
    Loop(StudentModule(module), plan, *batches, engine, store, callbacks).run()
    return store.rows


def same(ours, theirs, rel=1e-5):
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.allclose(mine, other, rtol=rel, atol=rel * float(other.abs().max()))
    return True


@pytest.mark.parametrize("accumulate", [2, 8])
def test_passes_give_what_the_whole_batch_gives(digits, accumulate):
    whole, passes = network(), network()
    expected = train(digits, whole, batch_size=64, clip="1", ema=0.9)
    rows = train(digits, passes, batch_size=64, clip="1", ema=0.9, accumulate=accumulate)
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-6)
    assert same(passes, whole)


# 1,295 images: the last batch of 129 has 5 images, fewer than two for each process; that of 647 one.
@pytest.mark.parametrize(
    ("batch_size", "accumulate"),
    [(129, 3), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((54, 3), (72, 2), (647, 1)))],
)
def test_processes_give_what_one_gives_with_any_last_batch(digits, in_processes, batch_size, accumulate):
    alone = network()
    expected = train(digits, alone, batch_size=batch_size)

    def work():
        ours = network()
        with together("cpu"):
            rows = train(digits, ours, batch_size=batch_size, accumulate=accumulate)
        assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-5)
        assert [row["val_loss"] for row in rows] == pytest.approx([row["val_loss"] for row in expected], rel=1e-5)
        assert same(ours, alone)

    assert in_processes(work, count=3) == [0, 0, 0]


def test_images_without_a_label_count_alike_in_passes_and_processes(digits, in_processes):
    partly = _PartlyLabelled(digits.train)
    partly.labels = torch.where(torch.arange(len(partly)) % 3 == 0, UNLABELLED, digits.train.labels)
    data = dataclasses.replace(digits, train=partly)
    alone = network()
    expected = train(data, alone, batch_size=64)

    def work():
        ours = network()
        with together("cpu"):
            rows = train(data, ours, batch_size=64, accumulate=2)
        assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-5)
        assert same(ours, alone)

    assert in_processes(work) == [0, 0]


class _PartlyLabelled(Split):
    """A split of which some images have no label."""

    unlabelled = 1

    def __init__(self, split):
        super().__init__(split.name, split._images, split.labels, split.spec)


class Watching(Callback):
    """Write down what a callback is told."""

    def __init__(self):
        self.indices, self.gradients, self.logits = [], [], []

    def before_step(self, module):
        self.gradients.append(module[1].weight.grad.clone())

    def after_step(self, module, step):
        self.indices.append(step.indices.sort().values.tolist())
        self.logits.append(step.student.shape)


def test_a_callback_sees_the_whole_step(digits, in_processes):
    alone = Watching()
    train(digits, network(), [alone], epochs=1)

    def work():
        shared = Watching()
        with together("cpu"):
            train(digits, network(), [shared], epochs=1, accumulate=2)
        assert shared.indices == alone.indices
        assert shared.logits == alone.logits
        for ours, theirs in zip(shared.gradients, alone.gradients, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)

    assert in_processes(work) == [0, 0]


@pytest.mark.slow
def test_parameters_that_a_loss_does_not_reach_do_not_stop_the_others(digits, in_processes):
    def work():
        with together("cpu"):
            module = network()
            before = module[4].weight.detach().clone()
            train(digits, module, loss=lambda step: module[1].weight.square().mean() + 0 * step.images.mean())
            assert torch.equal(module[4].weight, before)

    assert in_processes(work) == [0, 0]


def test_batch_norm_has_the_statistics_of_each_process_and_validates_alike(digits, in_processes, tmp_path, capfd):
    alone = network(batch_norm=True)
    expected = train(digits, alone, epochs=3)

    def work():
        ours = network(batch_norm=True)
        with together("cpu"):
            rows = train(digits, ours, epochs=3, sync_batchnorm=True)
        assert rows[-1]["val_accuracy"] == pytest.approx(expected[-1]["val_accuracy"], abs=0.1)
        torch.save(ours.state_dict(), tmp_path / f"{os.environ['RANK']}.pt")

    assert in_processes(work) == [0, 0]
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in (0, 1))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert "--sync-batchnorm: torch has it on GPUs only" in capfd.readouterr().err


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_ends_all_alike(digits, in_processes):
    def loss(step):
        return step.cross_entropy() * (float("nan") if rank() == 1 else 1.0)

    def work():
        with together("cpu"), pytest.raises(LossNotFiniteError, match="phase: the loss is not finite in epoch 1"):
            train(digits, network(), loss=loss)

    assert in_processes(work) == [0, 0]


@pytest.mark.slow
def test_a_loss_is_validated_over_all_images(digits, in_processes):
    alone = train(digits, network(), validates="loss", loss=lambda step: F.mse_loss(step.student, step.student * 0))

    def work():
        with together("cpu"):
            rows = train(
                digits, network(), validates="loss", loss=lambda step: F.mse_loss(step.student, step.student * 0)
            )
        assert [row["val_loss"] for row in rows] == pytest.approx([row["val_loss"] for row in alone], rel=1e-4)

    assert in_processes(work) == [0, 0]


def test_a_process_alone_sees_the_images_in_the_order_that_follows_from_seed_phase_and_epoch(digits):
    orders = []

    class Order(Callback):
        def after_step(self, module, step):
            orders.append(step.indices)

    train(digits, network(), [Order()], seed=7)
    with forked():
        expected = []
        for epoch in (0, 1):
            set_seed(derive(7, "phase", epoch))
            expected += torch.randperm(len(digits.train)).split(64)
    assert all(torch.equal(*pair) for pair in zip(orders, expected, strict=True))


@pytest.mark.slow
def test_activations_that_are_computed_again_change_nothing(tmp_path):
    options = {"data": "digits", "subset": 0.05, "image_size": 32, "epochs": 1, "batch_size": 16, "threads": 1}
    results = []
    for checkpointed in (False, True):
        path = tmp_path / f"{checkpointed}.pt"
        results.append(kdtool.teacher("timm:test_vit", output=path, checkpoint_activations=checkpointed, **options))
    assert same(results[1].module, results[0].module, rel=1e-6)


def test_activations_can_be_computed_again_where_the_network_offers_it_alone(digits):
    with pytest.raises(UsageError, match="--checkpoint-activations: test:network does not offer it"):
        train(digits, network(), checkpoint_activations=True)


@pytest.mark.parametrize(
    ("count", "speedup", "line"),
    [
        (2, 1.63, "computes with 2 of 2 threads, 1.63x as fast as with one (--threads N: with N)"),
        (1, 1.0, "computes with 1 of 2 threads, no slower than with more (--threads N: with N)"),
    ],
)
def test_how_many_threads_compute_is_said_once(count, speedup, line, capsys):
    progress._say_once.cache_clear()
    steps = Steps.__new__(Steps)
    steps.passes, steps.leaves_one = [[]] * 10, False
    steps.plan = SimpleNamespace(training=Training(epochs=20))
    for seconds in (0.05, 0.2, 0.2):  # the first phase takes 10 s in all, which is not worth a line
        threads = SimpleNamespace(count=count, before=2, speedup=speedup, seconds=seconds)
        steps._say_threads(threads, epoch=0)
    assert capsys.readouterr().err == f"{line}\n"


class Counting(Callback):
    """Counts the steps, beside how many there are said to be."""

    def begin(self, module, steps, epochs):
        self.said, self.taken = steps, 0

    def after_step(self, module, step):
        self.taken += 1


def test_one_image_that_is_left_over_is_no_step(digits):
    """Neither of the mean loss, nor of the schedule, nor of what callbacks are told."""
    images, counting = len(digits.train), Counting()
    rows = train(digits, network(batch_norm=True), [counting], batch_size=images - 1, epochs=3)
    assert (counting.said, counting.taken) == (1, 3)
    whole = train(digits, network(batch_norm=True), batch_size=images, epochs=3)
    for one, other in zip(rows, whole, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02)
        assert one["lr"] == other["lr"]
