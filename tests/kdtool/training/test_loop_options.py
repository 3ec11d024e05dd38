"""The options of a training that change its updates, in the loop: averages, clipping, warm-up, mixtures."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from kdtool.data.raw import UNLABELLED
from kdtool.training.batches import DistillationBatches
from kdtool.training.callback import Callback
from kdtool.training.engine import Engine
from kdtool.training.evaluate import evaluate
from kdtool.training.frozen_network import LOGITS, FrozenNetwork
from kdtool.training.loop import Loop
from kdtool.training.mixing import Mixing
from kdtool.training.options import Training
from kdtool.training.step import Step
from kdtool.training.student import Auxiliary, StudentModule


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


class KeepsLast(Callback):
    keeps_last = True


class Residual(nn.Module):
    """A branch that can be dropped."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(32, 32), StochasticDepth(0.0, "row")

    def forward(self, x):
        return x + self.drop(self.layer(x))


class Peers(nn.Module):
    """Networks that learn together with a student."""

    def __init__(self, *members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images, maps):
        return [member(images) for member in self.members]


class Drops(Callback):
    """Remembers the probabilities with which each network drops its branches."""

    def __init__(self, *modules):
        self.modules, self.seen = modules, set()

    def after_step(self, module, step):
        rates = (tuple(part.p for part in one.modules() if isinstance(part, StochasticDepth)) for one in self.modules)
        self.seen.add(tuple(rates))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def loop(module, data, store=None, loss=Step.cross_entropy, teacher=None, callbacks=(), auxiliary=None, **changes):
    training = Training(**{"precision": "fp32", "device": "cpu", **changes})
    engine = Engine(training, 0)
    train = DistillationBatches(data.train, engine, teacher, logits=teacher is not None)
    val = DistillationBatches(data.val, engine)
    plan = SimpleNamespace(
        name="phase",
        drawn_as="phase",
        training=training,
        loss=loss,
        validates="accuracy",
        classifier=None,
        objective=None,
    )
    return Loop(StudentModule(module, auxiliary=auxiliary), plan, train, val, engine, store or Memory(), callbacks)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_averages_and_automatic_clipping_go_on_bit_for_bit(digits, optimizer):
    options = {
        "optimizer": optimizer,
        "epochs": 3,
        "ema": 0.9,
        "clip": "auto",
        "warmup": 1,
        "weight_decay": 0.1,
        "norm_decay": False,
    }
    whole, stores = network(), (Memory(), Memory())
    metrics = loop(whole, digits, stores[0], **options).run()
    first = loop(network(), digits, stores[1], **options)
    first._is_over = lambda: first.state.epoch == 2
    first.run()
    resumed = network()
    assert loop(resumed, digits, Memory(stores[1].state), **options).run() == metrics
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_average_is_validated_beside_the_weights_and_the_better_one_is_kept(digits):
    store, module = Memory(), network()
    # Weights that jump about are worse than their average.
    metrics = loop(module, digits, store, epochs=4, lr=0.03, schedule="constant", ema=0.99).run()
    averaged = [row["val_accuracy_averaged"] for row in store.rows]
    assert metrics["averaged"]
    assert metrics["accuracy"] == max(averaged) > max(row["val_accuracy"] for row in store.rows)
    assert evaluate(module, digits.val)["accuracy"] == metrics["accuracy"]


def test_what_a_callback_wants_as_the_last_step_left_it_is_not_averaged(digits):
    assert loop(network(), digits, ema=0.9, callbacks=[KeepsLast()]).updates.average is None


def test_mixtures_teach_and_reach_the_teacher(digits):
    seen = []

    def watch(step):
        seen.append((step.target.unique().tolist(), step.images, step.parts, step.teacher))
        return step.cross_entropy() + (step.student - step.teacher).square().mean()

    engine, store = Engine(Training(device="cpu", precision="fp32"), 0), Memory()
    taught_by = FrozenNetwork(network(), {LOGITS: "key"}, engine, None)
    training = loop(network(), digits, store, watch, epochs=1, teacher=taught_by)
    training.train.mixing = Mixing(0.4, 1.0, 10)
    training.run()
    targets, images, parts, answers = seen[0]
    assert targets == [UNLABELLED]
    assert parts.sum(1).tolist() == pytest.approx([1.0] * 64)
    assert (parts.max(1).values < 1).any()
    torch.testing.assert_close(answers, taught_by.module(images))


def test_all_networks_that_learn_together_drop_branches_and_go_on_bit_for_bit(digits):
    def residual(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), Residual(), Residual(), nn.Linear(32, 10))

    def both(step):
        (peer,) = step.auxiliary
        return step.cross_entropy() + nn.functional.cross_entropy(peer, step.target)

    def trained(store, until=3):
        student, peers = residual(0), Peers(residual(1))
        drops = Drops(student, peers)
        training = loop(student, digits, store, both, None, [drops], Auxiliary(peers), epochs=3, drop_path=0.5)
        training._is_over = lambda: training.state.epoch == until
        training.run()
        assert drops.seen == {((0.0, 0.5), (0.0, 0.5))}
        assert [part.p for part in peers.modules() if isinstance(part, StochasticDepth)] == [0.0, 0.0]
        return [*student.parameters(), *peers.parameters()]

    whole, cut = trained(Memory()), Memory()
    trained(cut, until=2)
    for ours, theirs in zip(trained(Memory(cut.state)), whole, strict=True):
        assert torch.equal(ours, theirs)


def test_networks_that_learn_by_themselves_are_clipped_by_norms_of_their_own(digits):
    def trained(store, weight=1.0, until=3, **options):
        torch.manual_seed(1)
        student, peers = network(), Peers(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
        auxiliary = Auxiliary(peers, independent=tuple(peers.members))

        def both(step):
            (peer,) = step.auxiliary
            return weight * step.cross_entropy() + nn.functional.cross_entropy(peer, step.target)

        training = loop(student, digits, store, both, auxiliary=auxiliary, epochs=3, clip="auto", **options)
        training._is_over = lambda: training.state.epoch == until
        training.run()
        return training.updates, [*student.parameters(), *peers.parameters()]

    cut = Memory()
    trained(cut, until=2)
    whole, weights = trained(Memory())
    went_on, same = trained(Memory(cut.state))
    for ours, theirs in zip(same, weights, strict=True):
        assert torch.equal(ours, theirs)
    norms = [clipping.norms for clipping, _ in whole.clipped]
    assert [clipping.norms for clipping, _ in went_on.clipped] == norms
    assert len(norms) == 2
    assert norms[0] != norms[1]
    # The state of a release that took one norm of all.
    cut.state["clipping"] = cut.state["clipping"][0]
    older, _ = trained(Memory(cut.state))
    assert [len(clipping.norms) for clipping, _ in older.clipped] == [len(norms[0])] * 2
    # The student's loss reaches the norm of the student alone.
    louder, _ = trained(Memory(), weight=10.0)
    assert louder.clipped[1][0].norms == norms[1]
    assert louder.clipped[0][0].norms != norms[0]
