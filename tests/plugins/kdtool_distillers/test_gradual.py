"""The scores and the order of gates that close step by step, against numbers worked out by hand."""

import torch

from kdtool_distillers.gradual import closing_order, running_mean, squared_effect


def test_a_score_is_the_change_of_a_linear_loss_squared():
    slope = torch.tensor([3.0, -2.0, 0.5, 4.0])
    gates = torch.tensor([1.0, 1.0, 1.0, 0.0], requires_grad=True)
    (slope @ gates).backward()
    changes = torch.stack([slope @ gates - slope @ gates.index_fill(0, torch.tensor(i), 0) for i in range(4)])
    torch.testing.assert_close(squared_effect(gates, gates.grad).detach(), changes.detach().square())


def test_the_running_mean_by_hand():
    mean, seen = torch.zeros(1), []
    for k, value in enumerate((4.0, 2.0, 6.0, 0.5), start=1):
        mean = running_mean(mean, torch.tensor([value]), k, 2)
        seen.append(mean.item())
    # The mean of 4 and 2 is 3; then half of the way to each new value.
    assert seen == [4, 3, 4.5, 2.5]


def order(scores, alpha, closable=None, is_open=None, sets=None, round_to=1):
    every = torch.ones(len(scores), dtype=torch.bool)
    masks = (every if mask is None else torch.tensor(mask, dtype=torch.bool) for mask in (closable, is_open))
    sets = torch.tensor(sets or [0] * len(scores))
    return closing_order(torch.tensor(scores), torch.tensor(alpha), *masks, sets, round_to).tolist()


def test_gates_close_by_score_over_cost():
    # The first of a set always stays: 4 / 1 in set 0 (gate 2), and 9 / 1 in set 1 (gate 5).
    scores, alpha, sets = [1.0, 3.0, 4.0, 0.5, 2.0, 9.0], [0.5, 1.0, 1.0, 1.0, 0.25, 1.0], [0, 0, 0, 1, 1, 1]
    # 2, 3, stays, 0.5, 8, stays
    assert order(scores, alpha, sets=sets) == [3, 0, 1, 4]
    assert order(scores, alpha, closable=[1, 0, 1, 1, 1, 1], sets=sets) == [3, 0, 2, 4]
    # What is closed already is not named again, and does not count as the one that stays.
    assert order(scores, alpha, is_open=[1, 1, 0, 1, 1, 1], sets=sets) == [3, 0, 4]


def test_a_gate_without_a_cost_closes_last():
    assert order([1.0, 9.0, 2.0, 3.0], [0.0, 1.0, 1.0, 0.0], sets=[0, 1, 1, 0]) == [2, 0]


def test_gates_close_in_blocks_of_what_a_layer_loses_at_once():
    # Set 0, sorted: 9 8 | 6 2 | 1. Set 1: 7 7 | 5 1. The first two of each stay.
    scores, sets = [9.0, 1.0, 8.0, 2.0, 6.0, 7.0, 5.0, 7.0, 1.0], [0, 0, 0, 0, 0, 1, 1, 1, 1]
    # The sums of the scores over those of alpha: 1 / 1, 6 / 2 and 8 / 2.
    assert order(scores, [1.0] * 9, sets=sets, round_to=2) == [1, 6, 8, 4, 3]
    # 1 / 4, 8 / 8 and 6 / 2
    assert order(scores, [4.0] * 5 + [1.0] * 4, sets=sets, round_to=2) == [1, 4, 3, 6, 8]
