"""Gated search: one step by hand, the budget, the phases, a kill, the ablations, and what is refused."""

import json
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import kdtool
from kdtool.errors import UsageError
from kdtool.models.checkpoint import read
from kdtool.surgery.gates.gated import Places, Reader
from kdtool.training.optimization.optimizer import make_optimizer
from kdtool.training.options import Training
from kdtool.training.step import Step
from kdtool_distillers.gated import Gated
from kdtool_distillers.gated_loss import GateSearchLoss
from kdtool_distillers.gated_options import GateSearchOptions
from kdtool_distillers.gated_proximal import ProximalSearch

SHORT = {
    "epochs": 1,
    "subset": 0.3,
    "device": "cpu",
    "precision": "fp32",
    "batch_size": 32,
    "views": 1,
    "exporter": {"name": "onnx", "latency": False},
    "round_to": 1,
    "search_epochs": 4,
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("gated") / "teacher.pt"
    kdtool.teacher("kdtool:lenet-5", data="digits", output=path, epochs=4, device="cpu")
    return path


def distil(teacher, output, **options):
    return kdtool.distill(teacher, "gated", output=output, **{**SHORT, "target_macs": "0.5x", **options})


def rows(run, phase="search"):
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in epochs if row["phase"] == phase]


def two_gates():
    """Three hidden units behind two gates, the first of which multiplies two of them, in float64."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(1, 3, bias=False), nn.Linear(3, 2, bias=False))
    number = torch.tensor([0, 0, 1])
    units = torch.tensor([0, 1])
    zeros = torch.zeros(2, dtype=torch.long)
    places = Places(units, zeros, zeros, (("0", False),), ("0",), (Reader("1", number),), {"0": number}, {})
    return kdtool.surgery.gates.Gated(module, places)


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
    costs = kdtool.surgery.gates.GateCosts(gated, (1, 1, 1), "macs")
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
        options = GateSearchOptions(target_macs="0.5x", search_temperature=2.0, **changes)
        return GateSearchLoss(options).loss(step).item()

    assert loss() == pytest.approx(4 * kl, rel=1e-5)
    assert loss(kl_target=0.3) == pytest.approx(4 * (0.3 - kl), rel=1e-5)
    assert loss(search_loss="ce") == pytest.approx(torch.tensor(2.0).log().item())


@pytest.mark.parametrize(
    ("flag", "key", "options"),
    [
        ("target_macs", "macs", {"closing": "proximal"}),
        ("target_params", "parameters", {"closing": "proximal"}),
        ("target_macs", "macs", {}),
        ("target_params", "parameters", {"cost_weights": False}),
        ("target_macs", "macs", {"round_to": 4, "search_loss": "ce", "search_epochs": 1}),
    ],
)
def test_the_budget_is_met(teacher, tmp_path, flag, key, options):
    student = distil(teacher, tmp_path / "s.pt", **{"target_macs": None, flag: "0.5x", **options})
    entry = student.history[-1]
    whole = kdtool.load(teacher).history[-1]["size"][key]
    assert 0.49 * whole <= entry["size"][key] <= 0.5 * whole
    assert "missed" not in entry["reached"]
    epochs = rows(tmp_path / "s.run")
    assert epochs[-1][key] <= entry["size"][key]
    if "closing" in options:
        assert len(epochs) < 4 or epochs[-1]["open"] < epochs[-2]["open"]
    elif len(epochs) == 4:
        assert epochs[0]["open"] > epochs[1]["open"] > epochs[2]["open"] == epochs[3]["open"]
    assert [row["model"] for row in entry["rows"]] == ["teacher", "searched", "student"]
    again = read(tmp_path / "s.pt")
    images = torch.rand(2, *again.architecture.input)
    with torch.no_grad():
        assert torch.equal(again.module(images), student.module(images))
    for name in ("gates.svg", "search.svg"):
        assert ElementTree.parse(tmp_path / "s.run" / name).getroot().tag.endswith("svg")


def test_the_student_gives_the_outputs_of_the_search(teacher, tmp_path, monkeypatch):
    seen = {}
    fit = kdtool.Run.fit

    def watched(self, name, student, **options):
        seen[name] = student, (done := fit(self, name, student, **options))
        return done

    monkeypatch.setattr(kdtool.Run, "fit", watched)
    distil(teacher, tmp_path / "s.pt")
    gated, start = seen["search"][1].network, seen["distil"][0]
    images = torch.rand(4, *start.architecture.input)
    with torch.no_grad():  # LeNet has no batch-norms to recalibrate
        torch.testing.assert_close(start.module(images), gated.module(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("closing", "epochs"), [("proximal", 12), ("gradual", 4)])
def test_a_cut_search_goes_on_bit_for_bit(teacher, tmp_path, cut_after, closing, epochs):
    long = {"target_macs": "0.2x", "search_epochs": epochs, "closing": closing}
    whole = distil(teacher, tmp_path / "whole.pt", **long)
    assert len(rows(tmp_path / "whole.run")) > 2
    with cut_after("search", 2):
        distil(teacher, tmp_path / "cut.pt", **long)
    distil(teacher, tmp_path / "cut.pt", resume=True, **long)
    cut = read(tmp_path / "cut.pt")
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, cut.module.state_dict()[name]), name
    assert [row["open"] for row in rows(tmp_path / "cut.run")] == [row["open"] for row in rows(tmp_path / "whole.run")]


def test_a_budget_that_is_not_met_is_told_or_forced(teacher, tmp_path, caplog):
    weak = {"closing": "proximal", "gate_penalty": 1e-6, "gate_lr": 1e-3, "search_epochs": 1, "epochs": 0}
    missed = distil(teacher, tmp_path / "missed.pt", force_target=False, **weak)
    assert "--target-macs 0.5x was not met in 1 epochs of search" in caplog.text
    assert "--force-target" in missed.history[-1]["reached"]["missed"]
    forced = distil(teacher, tmp_path / "forced.pt", **weak)
    whole = kdtool.load(teacher).history[-1]["size"]["macs"]
    assert 0.49 * whole <= forced.history[-1]["size"]["macs"] <= 0.5 * whole


def test_fresh_weights_are_not_those_that_were_searched(teacher, tmp_path):
    inherited, fresh = (distil(teacher, tmp_path / f"{init}.pt", init=init, epochs=0) for init in ("inherit", "fresh"))
    assert inherited.architecture == fresh.architecture
    assert not torch.equal(inherited.module.conv1.weight, fresh.module.conv1.weight)


class Stopwatch(kdtool.Exporter):
    """Report the fraction of the MACs that is left as the latency."""

    latency: bool = kdtool.option(True, help="measure")

    def export(self, network, output, *, metadata, teacher=None, test=None):
        from kdtool.models.size import measure

        return {"latency": {"ratio": measure(network)["macs"] / measure(teacher)["macs"]}}


@pytest.mark.parametrize("force", [False, True])
def test_the_latency_is_measured_between_epochs(teacher, tmp_path, force):
    weak = {"gate_penalty": 1e-6, "gate_lr": 1e-3} if force else {}
    weak["closing"] = "proximal"
    options = {"target_macs": None, "target_latency": "0.6x", "exporter": Stopwatch(), "latency_every": 2, "epochs": 0}
    student = distil(teacher, tmp_path / "s.pt", force_target=force, **options, **weak)
    measured = [row.get("latency_ratio") for row in rows(tmp_path / "s.run")]
    assert [ratio is not None for ratio in measured] == [epoch % 2 == 0 for epoch in range(1, len(measured) + 1)]
    table = student.history[-1]["rows"]
    assert table[0]["latency_ratio"] == 1
    assert 0.57 <= table[-1]["latency_ratio"] <= 0.6
    assert "missed" not in student.history[-1]["reached"]


def test_the_latency_is_met_step_by_step(teacher, tmp_path):
    options = {"target_macs": None, "target_latency": "0.6x", "exporter": Stopwatch(), "latency_every": 1, "epochs": 0}
    student = distil(teacher, tmp_path / "s.pt", search_epochs=8, **options)
    epochs = rows(tmp_path / "s.run")
    # In the last two of eight epochs gates rest, and nothing is measured.
    assert ["latency_ratio" in row for row in epochs] == [True] * 6 + [False] * 2
    assert epochs[0]["open"] > epochs[1]["open"] > epochs[2]["open"] >= epochs[5]["open"] == epochs[7]["open"]
    assert 0.57 <= student.history[-1]["rows"][-1]["latency_ratio"] <= 0.6
    assert "missed" not in student.history[-1]["reached"]
    # The latency is that of the MACs, which is what is expected; gates close gradually, and not at the measurement.
    assert epochs[3]["latency_ratio"] < 0.75


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"closing": "gradual", "gate_lr": 0.1}, r"--gate-lr: belongs to --closing proximal"),
        ({"target_macs": "900M"}, r"--target-macs 900M: kdtool:lenet-5 has 417k MACs; give less than that"),
        ({"target_macs": "0.0001x"}, r"--target-macs 0.0001x: with one channel per layer kdtool:lenet-5 still has"),
        ({"target_macs": "0.1x", "round_to": 64}, r"with 64 channels \(--round-to\) per layer"),
        ({"target_params": "0.5x"}, r"--target-macs and --target-params are two budgets; give one"),
        ({"target_macs": None}, r"gated needs a budget: --target-macs 0.3x, --target-params or --target-latency"),
        ({"target_macs": None, "target_latency": "5M"}, r"--target-latency 5M: give a fraction of the teacher's"),
        ({"target_macs": None, "target_latency": "0.5x"}, r"--target-latency: needs an exporter that measures it"),
        ({"precision": "fp16"}, r"--precision fp16: .* use bf16 or fp32"),
        ({"student": "kdtool:lenet-5"}, r"--student: gated searches its student in the teacher"),
        ({"refiner": "halve"}, r"--refiner: gated searches its student in the teacher"),
    ],
)
def test_what_is_refused(teacher, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        distil(teacher, tmp_path / "s.pt", **options)
    assert not (tmp_path / "s.pt").exists()


def test_what_a_search_that_is_given_up_leaves_is_the_network_itself():
    gated, images = two_gates(), torch.rand(4, 1)
    gated.gates.data.copy_(torch.tensor([0.5, 0.0]))
    left = search_of(gated).result(gated)
    assert set(left.state_dict()) == {"0.weight", "1.weight"}
    torch.testing.assert_close(left(images), gated(images))


def test_it_is_a_strategy():
    assert Gated.makes_student
    assert not Gated.fills_role()
    with pytest.raises(UsageError, match="--objective gated: is a strategy and has no loss"):
        kdtool.make("distillers", "ikd", objective="gated")
