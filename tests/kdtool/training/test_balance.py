"""The ratio of gradients: its number on a linear network, the line about it, and that the training stays the same."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import kdtool
from kdtool.data.raw import UNLABELLED
from kdtool.plugins.registry import make
from kdtool.plugins.schedule import Schedule
from kdtool.training.balance import COST, LEAST, LIMIT, LOOKS, SHARE, Balance
from kdtool.training.callback import Callback
from kdtool.training.engine import Engine
from kdtool.training.objective import Objective
from kdtool.training.options import Training
from kdtool.training.phase import read_epochs
from kdtool.training.step import Step


class Squared(Objective):
    """The labels' cross-entropy and a weighted squared distance of the logits to the teacher's."""

    def __init__(self, weight):
        self.weight = weight

    def loss(self, step):
        return step.cross_entropy() + self.weight * (step.student - step.teacher).square().mean()

    def weights(self, part=""):
        return {"--weight": self.weight}


def balance(module, objective, steps=1000, epochs=100, validates="accuracy", callbacks=()):
    training = Training(device="cpu", precision="fp32", epochs=epochs)
    plan = SimpleNamespace(name="phase", objective=objective, training=training, validates=validates)
    return Balance(plan, module, Engine(training, 0), steps, callbacks)


def step_of(module, inputs, target, teacher, **about):
    return Step(module(inputs), target, inputs, teacher, **about)


def test_the_ratio_on_a_linear_network(capsys):
    # z = W x for two images and two classes, W = 0, so that all probabilities are 1/2. With dL/dz = G, dL/dW = G^T X.
    # Cross-entropy: G = (p - y) / 2. Squared distance, the mean over 4 numbers: G = 2 (z - t) / 4.
    module = nn.Linear(3, 2, bias=False).double()
    nn.init.zeros_(module.weight)
    inputs = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
    teacher = torch.tensor([[4.0, -2.0], [0.0, 6.0]], dtype=torch.float64)
    labels = torch.tensor([[-0.25, 0.25], [0.25, -0.25]], dtype=torch.float64)
    distance = -teacher / 2
    expected = (labels + 50 * distance).T @ inputs
    ratio = (expected.norm() / (labels.T @ inputs).norm()).item()
    watched, step = balance(module, Squared(50.0)), step_of(module, inputs, torch.tensor([0, 1]), teacher)
    watched.look(step, watched.plan.objective.loss(step), 1)
    assert watched.ratio == pytest.approx(ratio, rel=1e-6)
    assert watched.logged(0) == {"gradient_ratio": pytest.approx(ratio, rel=5e-3)}
    assert watched.logged(1) == {}
    assert module.weight.grad is None


def test_it_is_the_largest_of_some_steps_of_the_first_epoch(capsys):
    module = nn.Linear(3, 2, bias=False)
    watched = balance(module, Squared(1.0))
    inputs, target = torch.rand(2, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    looked, before = [], 0.0
    for number in range(1, 150):
        step = step_of(module, inputs, target, torch.full((2, 2), float(number)))
        watched.look(step, watched.plan.objective.loss(step), number)
        if watched.ratio != before:
            looked.append(number)
        before = watched.ratio
    assert looked == list(LOOKS)
    smaller = step_of(module, inputs, target, torch.zeros(2, 2))
    watched.look(smaller, watched.plan.objective.loss(smaller), 1)
    later = step_of(module, inputs, target, torch.full((2, 2), 1e6), epoch=1)
    watched.look(later, watched.plan.objective.loss(later), 1)
    assert watched.ratio == before
    (line,) = capsys.readouterr().err.splitlines()
    assert "if the student learns less than with --method none, lower --weight (now 1)" in line


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (18, 20), (18, 2), (391, 1), (391, 240)])
def test_what_the_looks_cost(steps, epochs):
    looks = balance(nn.Linear(2, 2), Squared(1.0), steps, epochs).looks
    assert 1 in looks
    assert max(looks) <= steps
    assert len(looks) <= LEAST or len(looks) * COST <= SHARE * steps * epochs


class Search(Callback):
    """A callback with other options than those of the loss."""

    remedy = "try another search"


def test_where_there_is_nothing_to_compare():
    module = nn.Linear(2, 2)
    assert not balance(module, None).looks
    assert not balance(module, make("distillers", "none")).looks
    assert not balance(module, Squared(1.0), validates="loss").looks
    assert not balance(module, Squared(1.0), callbacks=[Search()]).looks
    assert balance(module, Squared(1.0), callbacks=[Callback()]).looks


def test_images_without_labels_are_not_compared(capsys):
    module = nn.Linear(3, 2)
    watched = balance(module, Squared(1e6), steps=1)
    step = step_of(module, torch.rand(2, 3), torch.tensor([UNLABELLED, UNLABELLED]), torch.ones(2, 2), unlabelled=True)
    watched.look(step, watched.plan.objective.loss(step), 1)
    assert watched.logged(0) == {}
    assert capsys.readouterr().err == ""


class Once(torch.autograd.Function):
    """The identity, whose gradient can be computed once."""

    @staticmethod
    def forward(context, inputs):
        context.used = []
        return inputs.clone()

    @staticmethod
    def backward(context, gradient):
        if context.used:
            raise RuntimeError("used twice")
        context.used.append(True)
        return gradient


def test_a_graph_that_cannot_be_used_twice_is_left_alone():
    module = nn.Linear(3, 2)
    watched = balance(module, Squared(1.0))
    inputs = torch.rand(2, 3)
    step = Step(Once.apply(module(inputs)), torch.tensor([0, 1]), inputs, torch.ones(2, 2))
    watched.look(step, watched.plan.objective.loss(step), 1)
    assert not watched.looks
    assert watched.logged(0) == {}


LINE = "the gradient of the loss is"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A small network of convolutions that has seen a few digits."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    kdtool.teacher("kdtool:conv4-fc2", data="digits", augment="none", subset=0.05, epochs=1, output=path)
    return path


@pytest.fixture
def distilled(teacher, tmp_path):
    """A function that distils a few digits and returns the result and the log of its epochs."""

    def distil(method, epochs=1, name="s.pt", **options):
        path = tmp_path / name
        about = {"student": "kdtool:conv4-fc2", "subset": 0.05, **options}
        result = kdtool.distill(teacher, method, epochs=epochs, output=path, **about)
        return result, read_epochs(path.with_suffix(".run"))

    return distil


@pytest.mark.parametrize(
    ("method", "options", "named"),
    [
        ("at", {"weight": 1e6}, "--weight (now 1e+06)"),
        ("kd:0.9+at:1e6", {"optimizer": "sgd", "lr": 1e-4}, "--at-weight (now 1e+06) or --lr"),
    ],
)
def test_the_line_names_the_options(distilled, capsys, method, options, named):
    _, (row,) = distilled(method, **options)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if LINE in line]
    assert line.startswith(f"{method}: in step ")
    assert line.endswith(f"if the student learns less than with --method none, lower {named}")
    assert row["gradient_ratio"] > LIMIT


def test_kd_names_alpha_and_temperature(capsys):
    objective = make("distillers", "kd", temperature=50.0)
    module, inputs = nn.Linear(3, 2, bias=False), torch.rand(2, 3)
    nn.init.zeros_(module.weight)
    watched = balance(module, objective, steps=1)
    # The teacher is sure and right even at this temperature: dL/dz = (0.1 + 0.9 * T) * (p - y) / 2.
    step = step_of(module, inputs, torch.tensor([0, 1]), torch.tensor([[9000.0, 0.0], [0.0, 9000.0]]))
    watched.look(step, objective.loss(step), 1)
    assert watched.ratio == pytest.approx(0.1 + 0.9 * 50, rel=1e-5)
    assert "lower --alpha (now 0.9) or --temperature (now 50)\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "options", "weights"),
    [
        ("at", {"weight": "10->1"}, {"--weight": Schedule(10.0, 1.0)}),
        ("dist", {"beta": 3.0}, {"--beta": 3.0, "--gamma": 2.0}),
        ("dkd", {}, {"--alpha": 1.0, "--beta": 8.0}),
        ("rkd", {}, {"--distance": 25.0, "--angle": 50.0}),
        ("wkd", {}, {"--logit-weight": 600.0, "--feature-weight": 0.0}),
        ("logit-std+rkd:0.5", {}, {"--logit-std-weight": 9.0, "--rkd-distance": 25.0, "--rkd-angle": 50.0}),
    ],
)
def test_the_weights_of_a_loss(method, options, weights):
    assert make("distillers", method, **options).weights() == weights


@pytest.mark.parametrize("method", ["kd", "kd+cc"])
def test_no_line_about_the_defaults(distilled, capsys, method):
    _, (row,) = distilled(method)
    assert LINE not in capsys.readouterr().err
    assert 0 < row["gradient_ratio"] < LIMIT


def test_no_ratio_of_the_labels_alone(distilled):
    _, (row,) = distilled("none")
    assert "gradient_ratio" not in row


def weights_of(result):
    return result.network.module.state_dict()


@pytest.mark.parametrize(("method", "options"), [("kd+at:1e6", {"mixup": 0.5}), ("crd", {"negatives": 8})])
def test_the_training_is_the_same_to_the_bit(distilled, monkeypatch, method, options):
    looked, (row,) = distilled(method, **options)
    assert "gradient_ratio" in row
    monkeypatch.setattr("kdtool.training.balance.LOOKS", ())
    alone, (row,) = distilled(method, name="alone.pt", **options)
    assert "gradient_ratio" not in row
    assert all(torch.equal(tensor, weights_of(alone)[name]) for name, tensor in weights_of(looked).items())


def test_a_resumed_training_is_the_same_to_the_bit(distilled, monkeypatch, capsys):
    whole, rows = distilled("at", epochs=2, weight=1e6, name="whole.pt")
    log = kdtool.Run.log

    def die(self, row):
        log(self, row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kdtool.Run, "log", die)
        with pytest.raises(KeyboardInterrupt):
            distilled("at", epochs=2, weight=1e6)
    capsys.readouterr()
    resumed, again = distilled("at", epochs=2, weight=1e6, resume=True)
    assert all(torch.equal(tensor, weights_of(resumed)[name]) for name, tensor in weights_of(whole).items())
    assert [row.get("gradient_ratio") for row in again] == [rows[0]["gradient_ratio"], None]
    assert LINE not in capsys.readouterr().err
