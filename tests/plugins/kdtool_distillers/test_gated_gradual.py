"""Gates that stay 0 or 1: the search by hand, residual streams, and what is refused."""

import pytest
import torch
from torch import nn

from kdtool.errors import UsageError
from kdtool.surgery.gates import GateCosts
from kdtool.surgery.gates.gated import Gated, Places, Reader
from kdtool.training.step import Step
from kdtool_distillers.gated_gradual import CLOSINGS, GradualSearch
from kdtool_distillers.gated_options import GateSearchOptions
from kdtool_distillers.gated_proximal import ProximalSearch


def eight_gates(streams=()):
    """Eight hidden units, a gate for each, in two sets of which each reads its own layer."""
    torch.manual_seed(0)
    module = nn.ModuleDict(
        {"a": nn.Linear(1, 4, bias=False), "b": nn.Linear(4, 4, bias=False), "c": nn.Linear(4, 1, bias=False)}
    )
    module.forward = lambda x: module["c"](module["b"](module["a"](x.flatten(1))))
    first, second = torch.arange(4), torch.arange(4, 8)
    places = Places(
        torch.arange(8),
        torch.tensor([0] * 4 + [1] * 4),
        torch.tensor([0] * 4 + [1] * 4),
        (("a", False), ("b", False)),
        ("a", "b"),
        (Reader("b", first), Reader("c", second)),
        {"a": first, "b": second},
        {},
        streams,
    )
    return Gated(module, places)


def search_of(gated, kind=GradualSearch, **changes):
    costs = GateCosts(gated, (1, 1, 1), "macs")
    assert costs.total == 4 + 16 + 4
    options = {"target_macs": "9", "round_to": 1, "closing": "gradual", **changes}
    return kind(GateSearchOptions(**options), costs, costs)


def run(search, gated, gradient, steps, epochs):
    """Take the steps of a search with the same gradient in each, and return the open gates after each."""
    zeros = torch.zeros(4, 2)
    step = Step(zeros, torch.zeros(4, dtype=torch.long), zeros, zeros)
    search.begin(gated, steps=steps, epochs=epochs)
    seen = []
    for epoch in range(1, epochs + 1):
        for _ in range(steps):
            gated.gates.grad = torch.tensor(gradient)
            search.after_step(gated, step)
            assert gated.gates.grad is None
            seen.append(gated.gates.nonzero().flatten().tolist())
        search.after_epoch(gated, epoch)
    return seen


def test_a_search_by_hand():
    gated = eight_gates()
    search = search_of(gated)
    seen = run(search, gated, [4.0, 1.0, 3.0, 6.0, 5.0, 2.0, 7.0, 8.0], steps=4, epochs=2)
    # With m and n open gates the cost is m + m n + n. Gates close in the first 6 of the 8 steps, to
    # 9 + 15 (1 - k / 6)^3: 17.7, 13.4, 10.9, 9.6, 9.1 and 9. At first alpha is 1 for all, and 3 and 7 stay.
    assert seen[0] == [0, 2, 3, 4, 6, 7]  # 1 and 5, with scores of 1 and 4, to 15; 1 alone would be 19
    assert seen[1] == [0, 3, 4, 6, 7]  # 2, with 9, to 11
    # Now a gate of the first layer saves 4, and one of the second 3: 16 / 4 and 25 / 3.
    assert seen[2:] == [[3, 4, 6, 7]] * 6  # 0, to 7
    assert set(gated.gates.tolist()) == {0, 1}
    assert not search.over


def test_the_scores_of_closed_gates_stay():
    gated = eight_gates()
    search = search_of(gated)
    run(search, gated, [4.0, 1.0, 3.0, 6.0, 5.0, 2.0, 7.0, 8.0], steps=4, epochs=2)
    # The gradient is the same in each step, and so is its mean.
    assert search.scores.tolist() == pytest.approx([16, 1, 9, 36, 25, 4, 49, 64])


def test_gates_rest_in_the_last_quarter_and_close_in_a_limited_number_of_steps():
    gated = eight_gates()
    search = search_of(gated, target_macs="2.1")
    seen = run(search, gated, [4.0, 1.0, 3.0, 6.0, 5.0, 2.0, 7.0, 8.0], steps=100, epochs=4)
    assert seen[299] == seen[-1] != seen[0]
    changes = [k for k in range(1, 400) if seen[k] != seen[k - 1]]
    every = 300 // CLOSINGS
    assert all((k + 1) % every == 0 or k + 1 == 300 for k in changes)


@pytest.mark.parametrize("kind", [GradualSearch, ProximalSearch])
def test_the_alpha_of_the_stream(kind):
    gated = eight_gates(streams=(1,))
    closing = "gradual" if kind is GradualSearch else "proximal"
    search = search_of(gated, kind, closing=closing, stream_alpha=0.0)
    search.begin(gated, steps=4, epochs=2)
    assert search.alpha.tolist() == [1] * 4 + [0] * 4
    plain = search_of(gated, kind, closing=closing)
    plain.begin(gated, steps=4, epochs=2)
    # With 1 of 4 other gates, at least an eighth, 1 + 4 + 4 = 9 are left, which is the budget.
    assert plain.alpha.tolist() == ([1] * 4 + [0] * 4 if kind is GradualSearch else [1] * 8)


def test_streams_close_with_the_others_where_these_cannot_meet_the_budget(caplog):
    gated = eight_gates(streams=(1,))
    search = search_of(gated, target_macs="8")
    search.begin(gated, steps=4, epochs=2)
    assert search.alpha.tolist() == [1] * 8
    assert "--target-macs 8: other layers would need less than an eighth of their channels" in caplog.text


def test_the_stream_closes_last():
    gated = eight_gates(streams=(1,))
    # 1 + 4 + 4 = 9: the others close, although they matter more.
    search = search_of(gated, stream_alpha=0.0)
    assert run(search, gated, [4.0, 5.0, 6.0, 7.0, 0.1, 0.2, 0.3, 0.4], 4, 2)[-1] == [3, 4, 5, 6, 7]
    gated = eight_gates(streams=(1,))
    search = search_of(gated, stream_alpha=0.0, target_macs="4")
    assert run(search, gated, [4.0, 5.0, 6.0, 7.0, 0.1, 0.2, 0.3, 0.4], 4, 2)[-1] == [3, 7]


def test_a_search_that_skips_steps_meets_its_budget():
    gated = eight_gates()
    search = search_of(gated)
    search.begin(gated, steps=4, epochs=1)
    search.scores = torch.arange(8.0)
    # The loop leaves out a batch of one image; here all of them.
    search.after_epoch(gated, 1)
    assert search.costs.of(gated.gates > 0) <= 9


@pytest.mark.parametrize("flag", ["gate_penalty", "gate_lr", "gate_step"])
def test_options_of_the_other_closing_are_refused(flag):
    with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')}: belongs to --closing proximal"):
        GateSearchOptions(target_macs="0.5x", closing="gradual", **{flag: 0.2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search_loss": "ce", "kl_target": 1.0}, "--kl-target: belongs to --search-loss kl"),
        ({"search_loss": "ce", "search_temperature": 30.0}, "--search-temperature: belongs to --search-loss kl"),
        ({"latency_every": 1}, "--latency-every: belongs to --target-latency"),
    ],
)
def test_options_of_another_loss_or_budget_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        GateSearchOptions(target_macs="0.5x", **options)
