"""The optimisers, and the schedules by hand."""

import math

import pytest
import torch

from kdtool.training.optimization.optimizer import make_optimizer, make_schedule
from kdtool.training.options import Training


def rates(schedule, steps=8, epochs=1, **changes):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    made = make_schedule(optimizer, Training(schedule=schedule, lr=1.0, epochs=epochs, **changes), steps)
    found = []
    for _ in range(steps * epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return found


def test_schedules_by_hand():
    assert rates("constant") == [1.0] * 8
    assert rates("cosine", 4) == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert rates("multi-step") == pytest.approx([1.0] * 4 + [0.1] * 2 + [0.01] * 2)
    # 10 steps rise for 0.3 * 10 - 1 = 2 steps by a cosine from 1/25 to 1, and fall to a tiny rest.
    cycle = rates("one-cycle", 10)
    assert cycle[:3] == pytest.approx([0.04, 0.52, 1.0])
    assert cycle[-1] == pytest.approx(0.04 / 1e4)


def test_warm_up_by_hand():
    # Half an epoch of 4 steps is 2 steps: 1/3, 2/3, and then the cosine of the other 6.
    expected = [1 / 3, 2 / 3, *((1 + math.cos(math.pi * step / 6)) / 2 for step in range(6))]
    assert rates("cosine", 4, 2, warmup=0.5) == pytest.approx(expected)
    assert rates("constant", 4, 2, warmup=1) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])
    # Milestones are parts of the whole phase: 0.5 and 0.75 of 8 steps, whatever the warm-up; none comes within it.
    assert rates("multi-step", 4, 2, warmup=0.5) == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.1, 0.1, 0.01, 0.01])
    found = rates("multi-step", 4, 2, warmup=1, milestones=(0.25, 0.75))
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.1, 0.1, 0.01, 0.01])
    # One-cycle reaches its top after its own rise of 5 of 10 steps, or right away.
    assert rates("one-cycle", 10, warmup=0.5).index(pytest.approx(1.0)) == 4
    assert rates("one-cycle", 10, warmup=0)[1] < rates("one-cycle", 10, warmup=0)[0]


@pytest.mark.parametrize(("steps", "epochs"), [(10, 1), (49, 1), (20, 2), (2, 1)])
def test_a_rise_of_one_step_is_a_cycle_that_begins_at_its_top(steps, epochs):
    # A rise of 2 steps has its top in the second one, so a rise of 1 step has it in the first.
    assert rates("one-cycle", 10, warmup=2 / 10)[:2] == pytest.approx([0.04, 1.0])
    cycle = rates("one-cycle", steps, epochs, warmup=1 / steps)
    falling = [(1 + math.cos(math.pi * step / (steps * epochs - 1))) / 2 for step in range(steps * epochs)]
    assert cycle == pytest.approx([0.04 / 1e4 + (1 - 0.04 / 1e4) * part for part in falling])


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
def test_one_cycle_moves_the_momentum_whatever_is_asked_for_except_that_of_muon(optimizer, momentum):
    training = Training(optimizer=optimizer, schedule="one-cycle", epochs=1, warmup=0.5, momentum=momentum)
    weight = torch.nn.Parameter(torch.ones(2, 2))
    made = make_optimizer([weight], training)
    schedule = make_schedule(made, training, 10)
    seen = []
    for _ in range(10):
        group = made.param_groups[0]
        seen.append(group["momentum"] if optimizer == "sgd" else group["betas"][0])
        weight.grad = torch.zeros(2, 2)
        made.step()
        schedule.step()
    assert (seen[0], seen[4], seen[-1]) == pytest.approx((0.95, 0.85, 0.95))
    if optimizer == "muon":
        assert made.param_groups[0]["momentum"] == momentum


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_optimizers(name, kind):
    made = make_optimizer(list(torch.nn.Linear(4, 3).parameters()), Training(optimizer=name, lr=0.1, weight_decay=0.01))
    assert type(made).__name__ == kind
    assert made.defaults["weight_decay"] == 0.01
    assert made.defaults["fused"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_momentum_of_sgd_is_nesterovs(momentum):
    ours, theirs = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    made = make_optimizer([ours], Training(optimizer="sgd", lr=0.1, momentum=momentum))
    expected = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, nesterov=momentum > 0)
    for weight, optimizer in ((ours, made), (theirs, expected)):
        for _ in range(3):
            weight.grad = 2 * weight.detach()
            optimizer.step()
    assert ours.item() == pytest.approx(theirs.item())


@pytest.mark.parametrize("shape", [(8, 24), (8, 4, 3, 2)])
def test_muon_moves_a_matrix_by_the_orthogonal_factor_of_its_gradient(shape):
    torch.manual_seed(0)
    weight, gradient = torch.nn.Parameter(torch.zeros(shape)), torch.randn(shape)
    made = make_optimizer([weight], Training(optimizer="muon", lr=0.1, momentum=0.0))
    weight.grad = gradient
    made.step()
    # The scale of the steps is that of AdamW: 0.2 * sqrt(24). Five steps of Newton and Schulz with the authors'
    # coefficients bring singular values to 0.7 to 1.2 and keep the directions, here up to the rounding of bfloat16.
    moved = weight.detach().reshape(8, 24) / (-0.1 * 0.2 * math.sqrt(24))
    left, _, right = torch.linalg.svd(gradient.reshape(8, 24), full_matrices=False)
    inner = left.T @ moved @ right.T
    assert inner.diagonal().min() > 0.65
    assert inner.diagonal().max() < 1.25
    assert (inner - inner.diagonal().diag()).abs().max() < 0.03


def test_muon_moves_vectors_as_nadamw_and_decays_weights_apart_from_the_gradient():
    training = Training(optimizer="muon", lr=0.1, weight_decay=0.5)
    bias, weight = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(4, 4))
    made = make_optimizer([bias, weight], training)
    bias.grad, weight.grad = torch.tensor([1.0, -2.0, 3.0]), torch.zeros(4, 4)
    made.step()
    # 1 - 0.1 * 0.5, then 0.1 * (0.9 m + 0.1 g) / (1 - 0.9) / |g| with m = 0.1 g, without the correction of Nadam's m.
    torch.testing.assert_close(bias.detach(), torch.tensor([0.76, 1.14, 0.76]))
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 0.95))
