"""The optimisers, and the schedules by hand."""

import pytest
import torch

from kdtool.training.optimizer import make_optimizer, make_schedule
from kdtool.training.options import Training


def rates(schedule, steps=8, **changes):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    made = make_schedule(optimizer, Training(schedule=schedule, lr=1.0, **changes), steps)
    found = []
    for _ in range(steps):
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


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_optimizers(name, kind):
    made = make_optimizer(list(torch.nn.Linear(4, 3).parameters()), Training(optimizer=name, lr=0.1, weight_decay=0.01))
    assert type(made).__name__ == kind
    assert made.defaults["weight_decay"] == 0.01
    assert made.defaults["fused"]
