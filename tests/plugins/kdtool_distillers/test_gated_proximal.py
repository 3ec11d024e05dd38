"""The proximal search with two gates: single steps, thresholds and losses, by hand."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from kdtool.data.raw import UNLABELLED
from kdtool.surgery.gates import GateCosts
from kdtool.surgery.gates.gated import Gated, Places, Reader
from kdtool.training.optimization.optimizer import make_optimizer
from kdtool.training.options import Training
from kdtool.training.step import Step
from kdtool_distillers.gated_loss import GateSearchLoss
from kdtool_distillers.gated_options import GateSearchOptions
from kdtool_distillers.gated_proximal import ProximalSearch


def two_gates():
    """Three hidden units behind two gates, the first of which multiplies two of them, in float64."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(1, 3, bias=False), nn.Linear(3, 2, bias=False))
    number = torch.tensor([0, 0, 1])
    units = torch.tensor([0, 1])
    zeros = torch.zeros(2, dtype=torch.long)
    places = Places(units, zeros, zeros, (("0", False),), ("0",), (Reader("1", number),), {"0": number}, {})
    return Gated(module, places)


def search_of(gated, **changes):
    options = {
        "gate_penalty": 0.4,
        "gate_lr": 0.5,
        "round_to": 1,
        "target_macs": "4",
        "gate_step": 0,
        "closing": "proximal",
        **changes,
    }
    # 1 x 3 and 3 x 2 products: 9; of these the first gate saves 2 + 4 and the second 1 + 2.
    costs = GateCosts(gated, (1, 1, 1), "macs")
    assert costs.total == 9
    return ProximalSearch(GateSearchOptions(**options), costs, costs)


def step_of(student=None):
    zeros = torch.zeros(4, 2)
    return Step(zeros if student is None else student, torch.zeros(4, dtype=torch.long), zeros, zeros)


def test_two_steps_of_the_gates_by_hand():
    gated = two_gates()
    search = search_of(gated)
    search.begin(gated, steps=10, epochs=1)
    assert search.alpha.tolist() == [1, 0.5]
    # Thresholds are 0.4 * 0.5 * alpha = 0.2 and 0.1.
    gated.gates.grad = torch.tensor([0.2, -0.1])
    search.after_step(gated, step_of())
    assert gated.gates.tolist() == pytest.approx([0.7, 0.95])  # 1 - 0.5 * 0.2 - 0.2, 1 + 0.5 * 0.1 - 0.1
    assert gated.gates.grad is None
    assert not search.over
    gated.gates.grad = torch.tensor([1.5, 0.0])
    search.after_step(gated, step_of())
    # x_2 = 0 and 0.85; y_3 = x_2 + (x_2 - x_1) / 4, not below 0.
    assert search.before.tolist() == pytest.approx([0, 0.85])
    assert gated.gates.tolist() == pytest.approx([0, 0.825])
    # 3 products are left, and the budget is 4.
    assert search.over
    row = search.after_epoch(gated, 1)
    assert gated.gates.tolist() == pytest.approx([0, 0.85])
    assert (row["open"], row["macs"]) == (1, 3)


def test_a_whole_step_against_differences():
    gated, images = two_gates().double(), torch.linspace(-1, 1, 4, dtype=torch.double).view(4, 1)
    teacher = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 3.0]], dtype=torch.double)
    search = search_of(gated, target_macs="1", weight_penalty=0.05)
    target = torch.zeros(4, dtype=torch.long)

    def loss():
        return search.objective.loss(Step(gated(images), target, images, teacher))

    def slope(tensor, place):
        with torch.no_grad():
            value, ends = tensor[place].item(), []
            for sign in (1, -1):
                tensor[place] = value + sign * 1e-6
                ends.append(loss().item())
            tensor[place] = value
        return (ends[0] - ends[1]) / 2e-6

    weight = gated.network[1].weight
    slopes = [slope(gated.gates, 0), slope(gated.gates, 1), slope(weight, (0, 1))]
    before = weight[0, 1].item()
    search.begin(gated, steps=10, epochs=1)
    training = Training(optimizer="sgd", lr=0.1, momentum=0, weight_decay=search.options.weight_penalty)
    optimizer = make_optimizer(list(gated.network.parameters()), training)
    loss().backward()
    optimizer.step()
    search.after_step(gated, Step(gated(images), target, images, teacher))
    expected = [1 - 0.5 * slopes[0] - 0.2, 1 - 0.5 * slopes[1] - 0.1]
    assert gated.gates.tolist() == pytest.approx(expected, abs=1e-6)
    assert weight[0, 1].item() == pytest.approx(before - 0.1 * (slopes[2] + 0.05 * before), abs=1e-6)


def test_the_gradient_moves_a_gate_by_no_more_than_the_limit():
    gated = two_gates()
    search = search_of(gated, target_macs="1", gate_step=0.1, gate_penalty=0.04)
    search.begin(gated, steps=10, epochs=1)
    gated.gates.grad = torch.tensor([1e9, -1e9])
    search.after_step(gated, step_of())
    # 1 - 0.1 - 0.02 and 1 + 0.1 - 0.01: only the gradient's part is limited.
    assert search.before.tolist() == pytest.approx([0.88, 1.09])
    for _ in range(200):
        gated.gates.grad = torch.tensor([0.0, -1e9])
        search.after_step(gated, step_of())
    assert gated.gates.max() == 2


def test_the_last_gate_of_a_layer_stays():
    gated = two_gates()
    search = search_of(gated, target_macs="1")
    search.begin(gated, steps=10, epochs=1)
    gated.gates.grad = torch.tensor([5.0, 3.0])
    search.after_step(gated, step_of())
    # Both would close. The second is less far below 0, so it stays as it was.
    assert search.before.tolist() == [0, 1]


@pytest.mark.parametrize(("cost_weights", "alpha"), [(True, [1, 0.5]), (False, [1, 1])])
def test_cost_weights(cost_weights, alpha):
    gated = two_gates()
    search = search_of(gated, cost_weights=cost_weights)
    search.begin(gated, steps=10, epochs=1)
    assert search.alpha.tolist() == alpha


def test_the_losses_by_hand():
    # softmax(2 ln 3 / 2) = 3/4 and 1/4 against halves: KL = 3/4 ln 3/2 + 1/4 ln 1/2.
    teacher = torch.tensor([[2.0, 0.0]]) * torch.tensor(3.0).log()
    kl = 0.75 * torch.tensor(1.5).log().item() + 0.25 * torch.tensor(0.5).log().item()
    step = Step(torch.zeros(1, 2), torch.tensor([0]), torch.zeros(1, 1), teacher)

    def loss(**changes):
        options = GateSearchOptions(target_macs="0.5x", **changes)
        return GateSearchLoss(options).loss(step).item()

    assert loss(search_temperature=2.0) == pytest.approx(4 * kl, rel=1e-5)
    assert loss(search_temperature=2.0, kl_target=0.3) == pytest.approx(4 * (0.3 - kl), rel=1e-5)
    assert loss(search_loss="ce") == pytest.approx(torch.tensor(2.0).log().item())


@pytest.mark.parametrize("search_loss", ["kl", "ce"])
def test_a_first_batch_without_labels_gives_penalties_too(search_loss):
    gated, zeros = two_gates(), torch.zeros(4, 2)
    search = search_of(gated, gate_penalty=None, gate_lr=None, search_loss=search_loss)
    search.begin(gated, steps=10, epochs=1)
    gated.gates.grad = torch.zeros(2)
    teacher = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    search.after_step(gated, Step(zeros, torch.full((4,), UNLABELLED), zeros, teacher, unlabelled=True))
    assert search.first > 0
    if search_loss == "ce":  # the penalties of both gates, 1 and 0.5, add up to that of a student that knows nothing
        assert 1.5 * search.first == pytest.approx(math.log(2))


def test_what_a_search_that_is_given_up_leaves_is_the_network_itself():
    gated, images = two_gates(), torch.rand(4, 1)
    gated.gates.data.copy_(torch.tensor([0.5, 0.0]))
    left = search_of(gated).result(gated)
    assert set(left.state_dict()) == {"0.weight", "1.weight"}
    torch.testing.assert_close(left(images), gated(images))


@pytest.mark.parametrize("stream_alpha", [None, 0.25])
def test_a_finished_search_is_loaded_without_a_beginning(stream_alpha):
    gated = two_gates()
    gated.places = dataclasses.replace(gated.places, streams=(0,))
    search, again, resumed = (search_of(gated, stream_alpha=stream_alpha, target_macs="4") for _ in range(3))
    search.begin(gated, steps=10, epochs=1)
    for gradient in ([0.2, -0.1], [3.0, 0.0]):
        gated.gates.grad = torch.tensor(gradient)
        search.after_step(gated, step_of())
    state = search.state()
    again.load(state)
    assert again.over is search.over is True
    assert torch.equal(again.needed, search.needed)
    # A search that goes on begins first, and computes alpha again.
    resumed.begin(gated, steps=10, epochs=1)
    resumed.alpha = torch.zeros(2)
    resumed.load(state)
    assert torch.equal(resumed.alpha, search.alpha)
