"""The loop: it learns, repeats exactly, stops where it must, and follows its schedules."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdtool.training.batches import DistillationBatches
from kdtool.training.callback import Callback, KeepEpoch
from kdtool.training.engine import Engine
from kdtool.training.epochs.steps import LossNotFiniteError
from kdtool.training.evaluate import evaluate
from kdtool.training.frozen_network import LOGITS, FrozenNetwork
from kdtool.training.loop import Loop
from kdtool.training.options import Training
from kdtool.training.output_cache import Cache
from kdtool.training.step import Step
from kdtool.training.student import StudentModule


class Memory:
    """A store in memory."""

    def __init__(self, state=None):
        self.state, self.rows = state, []

    def load(self):
        return copy.deepcopy(self.state)

    def save(self, state):
        self.state = copy.deepcopy(state())

    def log(self, row):
        self.rows.append(row)


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(dropout), nn.ReLU(), nn.Linear(32, 10))


def loop(module, data, store=None, loss=Step.cross_entropy, teacher=None, callbacks=(), **changes):
    validates = changes.pop("validates", "accuracy")
    training = Training(**{"epochs": 2, "precision": "fp32", "device": "cpu", **changes})
    engine = Engine(training, 0)
    train = DistillationBatches(data.train, engine, teacher, logits=teacher is not None, views=training.views)
    val = DistillationBatches(data.val, engine)
    plan = SimpleNamespace(name="phase", drawn_as="phase", training=training, loss=loss, validates=validates)
    plan.classifier = plan.objective = None
    return Loop(StudentModule(module), plan, train, val, engine, store or Memory(), callbacks)


def test_it_learns_the_digits(digits):
    module = network()
    metrics = loop(module, digits, epochs=6, lr=3e-3).run()
    assert metrics["accuracy"] > 0.9
    assert metrics["split"] == "val"
    assert evaluate(module, digits.val)["accuracy"] == metrics["accuracy"]


def test_the_best_epoch_is_kept(digits):
    store = Memory()
    module = network()
    # A rate this high makes validation jump about, so that the last epoch is rarely the best.
    metrics = loop(module, digits, store, epochs=6, lr=0.05, schedule="constant").run()
    assert metrics["accuracy"] == max(row["val_accuracy"] for row in store.rows)
    assert store.rows[metrics["best_epoch"] - 1]["val_accuracy"] == metrics["accuracy"]


def test_a_cut_phase_goes_on_bit_for_bit(digits):
    whole, cut = network(dropout=0.3), network(dropout=0.3)
    loop(whole, digits, epochs=4).run()
    store = Memory()
    first = loop(cut, digits, store, epochs=4)
    save = store.save

    def save_twice_then_die(state):
        save(state)
        if len(store.rows) == 2:
            raise KeyboardInterrupt

    store.save = save_twice_then_die
    with pytest.raises(KeyboardInterrupt):
        first.run()
    resumed = network(dropout=0.3)
    loop(resumed, digits, Memory(store.state), epochs=4).run()
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def frozen(module, cache=None):
    return FrozenNetwork(
        copy.deepcopy(module), {LOGITS: "key"}, Engine(Training(device="cpu", precision="fp32"), 0), cache
    )


def test_cached_and_uncached_losses_agree(digits, tmp_path):
    teacher = network()
    loop(teacher, digits, epochs=2, lr=3e-3).run()
    losses = []
    for cache in (None, Cache(tmp_path, 10**9)):
        store = Memory()
        match = lambda step: (step.student - step.teacher).square().mean()  # noqa: E731
        loop(network(), digits, store, match, epochs=3, views=2, teacher=frozen(teacher, cache)).run()
        losses.append([row["loss"] for row in store.rows])
    assert list(tmp_path.glob("*.npy"))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_the_teacher_is_untouched(digits):
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    before = copy.deepcopy(module.state_dict())
    taught_by = FrozenNetwork(module, {LOGITS: "key"}, Engine(Training(device="cpu", precision="fp32"), 0), None)
    loop(network(), digits, loss=lambda s: (s.student - s.teacher).square().mean(), epochs=1, teacher=taught_by).run()
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_the_least_loss_can_choose(digits):
    store = Memory()
    metrics = loop(network(), digits, store, epochs=4, lr=0.05, schedule="constant", validates="loss").run()
    assert metrics["loss"] == min(row["val_loss"] for row in store.rows)
    assert "accuracy" not in metrics


def test_a_loss_that_is_not_finite_stops(digits):
    def explode(step):
        return step.cross_entropy() * (float("nan") if step.epoch == 1 else 1.0)

    broken = loop(network(), digits, loss=explode, epochs=3)
    with pytest.raises(LossNotFiniteError, match=r"phase: the loss is not finite in epoch 2, step 1 of \d+"):
        broken.run()
    assert broken.state.best_weights


class BreakOnce(Callback):
    """Make the validation infinite after one epoch; the training itself stays finite."""

    def __init__(self, epochs, keeps_last=False):
        self.epochs, self.keeps_last = epochs, keeps_last

    def after_epoch(self, module, epoch):
        module[3].broken = epoch in self.epochs
        return {}


class Breakable(nn.ReLU):
    broken = False

    def forward(self, x):
        return super().forward(x) * (float("nan") if self.broken and not self.training else 1.0)


def breakable():
    module = network()
    module[3] = Breakable()
    return module


def test_an_epoch_that_validates_at_no_number_is_never_the_best(digits):
    store = Memory()
    metrics = loop(breakable(), digits, store, callbacks=[BreakOnce({1})], epochs=2).run()
    assert metrics["best_epoch"] == 2
    assert metrics["loss"] < 3
    with pytest.raises(
        LossNotFiniteError, match="validation split or the weights are not finite in any epoch; try a lower --lr"
    ):
        loop(breakable(), digits, callbacks=[BreakOnce({1, 2})], epochs=2).run()
    with pytest.raises(LossNotFiniteError, match="not finite after epoch 2"):
        loop(breakable(), digits, callbacks=[BreakOnce({2}, keeps_last=True)], epochs=3).run()


def test_weights_that_are_not_finite_are_never_the_best_though_the_loss_is_finite(digits):
    module, unread = network(), nn.Parameter(torch.zeros(1))
    module.register_parameter("unread", unread)  # as behind an activation that makes 0 of NaN
    spoilt = loop(module, digits, loss=lambda s: (unread.data.fill_((0, torch.nan)[s.epoch]), s.cross_entropy())[1])
    assert spoilt.run()["best_epoch"] == 1


def test_the_way_out_is_one_that_the_phase_has(digits):
    class Searched(Callback):
        remedy = "try a lower --search-lr"

    def broken(callbacks=(), **options):
        with pytest.raises(LossNotFiniteError) as caught:
            loop(network(), digits, loss=lambda s: s.student.sum() * torch.nan, callbacks=callbacks, **options).run()
        return str(caught.value).rpartition("; ")[2]

    assert broken() == "try a lower --lr, or --clip 1"
    assert broken(clip=1.0) == "try a lower --lr, or --clip 0.1"
    assert broken([Callback(), Searched()]) == "try a lower --search-lr"


def test_patience_stops_early(digits):
    store = Memory()
    loop(network(), digits, store, loss=lambda s: 0.0 * s.student.sum(), epochs=9, patience=2).run()
    assert len(store.rows) == 3


def test_a_callback_acts_after_every_step(digits):
    class ZeroFirstRow(Callback):
        def after_step(self, module, step):
            with torch.no_grad():
                module[1].weight[0].zero_()

    module = network()
    loop(module, digits, callbacks=[ZeroFirstRow()], epochs=1).run()
    assert (module[1].weight[0] == 0).all()
    assert (module[1].weight[1] != 0).any()


def test_penalties_are_added_to_the_loss(digits):
    class Weighted(Callback):
        def penalty(self, module):
            return 10 * module[1].weight.square().sum()

    sizes = []
    for callbacks in ([], [Callback()], [Weighted()], [Weighted(), Weighted()]):
        module = network()
        loop(module, digits, callbacks=callbacks, epochs=1).run()
        sizes.append(module[1].weight.norm().item())
    assert sizes[0] == sizes[1] > sizes[2] > sizes[3]


def test_parameters_of_a_callback_are_not_moved_by_the_optimiser(digits):
    class Owner(Callback):
        gradients = 0

        def parameters(self, module):
            return [module[1].bias]

        def after_step(self, module, step):
            self.gradients += module[1].bias.grad is not None
            module[1].bias.grad = None

    module, owner = network(), Owner()
    before = module[1].bias.clone()
    steps = loop(module, digits, callbacks=[owner], epochs=1)
    steps.run()
    assert torch.equal(module[1].bias, before)
    assert owner.gradients == steps.steps


def test_a_callback_ends_the_phase_and_its_last_step_is_the_result(digits):
    class Stop(Callback):
        keeps_last = True

        def after_step(self, module, step):
            self.over = step.epoch == 1
            self.last = module[1].weight.detach().clone()

        def after_epoch(self, module, epoch):
            return {"own": epoch}

    store, stop, module = Memory(), Stop(), network()
    metrics = loop(module, digits, store, callbacks=[stop], epochs=5).run()
    assert metrics["epochs"] == 2
    assert [row["own"] for row in store.rows] == [1, 2]
    assert torch.equal(module[1].weight, stop.last)


def test_what_a_callback_remembers_is_saved_with_the_phase(digits):
    store = Memory()
    first = KeepEpoch(1)
    loop(network(), digits, store, callbacks=[first], epochs=2).run()
    again = KeepEpoch(1)
    loop(network(), digits, Memory(store.state), callbacks=[again], epochs=2).run()
    assert first.weights.keys() == network().state_dict().keys()
    assert all(torch.equal(tensor, again.weights[name]) for name, tensor in first.weights.items())
    begun = KeepEpoch(0)
    loop(network(), digits, callbacks=[begun], epochs=1).run()
    assert all(torch.equal(tensor, begun.weights[name]) for name, tensor in network().state_dict().items())


def test_a_notebooks_random_numbers_stay_its_own(digits):
    torch.manual_seed(5)
    expected = torch.rand(3)
    module = network(dropout=0.3)
    torch.manual_seed(5)
    loop(module, digits, epochs=1).run()
    assert torch.equal(torch.rand(3), expected)


def test_bf16_learns_as_well(digits):
    accuracies = {}
    for precision in ("fp32", "bf16"):
        module = network()
        accuracies[precision] = loop(module, digits, epochs=6, lr=3e-3, precision=precision).run()["accuracy"]
        assert next(module.parameters()).dtype == torch.float32
    assert accuracies["bf16"] == pytest.approx(accuracies["fp32"], abs=0.04)


def test_frozen_parameters_stay(digits):
    module = network()
    module[1].requires_grad_(False)
    before = module[1].weight.clone()
    loop(module, digits, epochs=1).run()
    assert torch.equal(module[1].weight, before)
