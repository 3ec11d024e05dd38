"""Both kinds of budget are met, and exactly one of them is needed."""

import pytest

import kdtool
from kdtool.models.size import measure


def refiner(**options):
    return kdtool.make("refiners", "width-depth", **options)


@pytest.mark.parametrize(
    ("option", "count"),
    [pytest.param("target_macs", "macs", marks=pytest.mark.slow), ("target_params", "parameters")],
)
def test_each_target_is_met(tmp_path, option, count):
    teacher = kdtool.teacher("timm:test_resnet", classes=10, image_size=32, output=tmp_path / "teacher.pt")
    small = kdtool.refine(teacher, "width-depth", **{option: "0.5x"}, output=tmp_path / "small.pt")
    whole = measure(teacher.network)[count]
    assert 0.9 * 0.5 * whole <= measure(small.network)[count] <= 0.5 * whole
    entry = small.history[-1]
    assert entry["options"][option] == "0.5x"
    assert entry["size"] == measure(small.network)
    assert f"--{option.replace('_', '-')} 0.5x" in entry["line"]


def test_one_budget_is_needed():
    with pytest.raises(
        kdtool.UsageError, match=r"width-depth needs a budget: --target-macs 0\.25x, or --target-params"
    ):
        refiner()


def test_two_budgets_are_refused():
    with pytest.raises(kdtool.UsageError, match="--target-macs and --target-params are two budgets; give one"):
        refiner(target_macs="0.5x", target_params="1M")


@pytest.mark.parametrize("text", ["0.25y", "-1", "2x", "0x", "", True, None])
def test_other_budgets_are_refused_by_name(text):
    message = "needs a budget" if text is None else "--target-macs: "
    with pytest.raises(kdtool.UsageError, match=message):
        refiner(target_macs=text)


def test_options_reach_the_search(monkeypatch):
    calls = []
    monkeypatch.setattr(
        kdtool.surgery, "reach_budget", lambda *args, **options: calls.append((args, options)), raising=False
    )
    refiner(target_params="250k", depth_share=0.25, round_to=8, init="inherit").refine("network")
    options = {"count": "parameters", "depth_share": 0.25, "round_to": 8, "init": "inherit"}
    assert calls == [(("network", kdtool.Budget(250_000.0)), options)]
