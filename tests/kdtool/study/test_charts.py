import pytest

from kdtool.plotting.chart import Panel, Point
from kdtool.plotting.svg import MOST_PANELS
from kdtool.study.charts import charts


def row(step, accuracy, **values):
    interval = {"accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.1} if "seed" not in values else {}
    return {"step": step, "values": values, "accuracy": accuracy, "val_accuracy": None, **interval}


@pytest.fixture
def results():
    means = [
        row(step, accuracy + subset + layers / 100, layers=layers, subset=subset, head=head)
        for step, accuracy, head in (("stagewise", 0.2, "concat"), ("none", 0.1, "plain"))
        for layers in (18, 10)
        for subset in (0.5, 0.25)
    ]
    return {"means": means, "rows": [row("teacher", 0.9), row("none", 0.0, layers=10, subset=0.5, seed=0)]}


def test_a_line_for_each_method_and_a_panel_for_each_fraction(results):
    over_layers, over_subset = charts(results)

    assert (over_layers.title, over_layers.x, over_layers.y) == (
        "test accuracy against layers",
        "layers",
        "test accuracy",
    )
    assert [panel.title for panel in over_layers.panels] == ["subset 0.25", "subset 0.5"]
    assert over_subset.x == "subset"
    assert [panel.title for panel in over_subset.panels] == ["layers 10", "layers 18"]
    quarter = over_layers.panels[0]
    assert list(quarter.lines) == ["stagewise concat", "none plain"]
    assert [(point.x, point.y) for point in quarter.lines["none plain"]] == [
        (10, pytest.approx(0.45)),
        (18, pytest.approx(0.53)),
    ]
    assert quarter.lines["none plain"][0].high == pytest.approx(0.55)


def test_what_was_run_without_the_number_is_a_level(results):
    assert [panel.level for panel in charts(results)[0].panels] == [{"teacher": 0.9}, {"teacher": 0.9}]


def test_without_two_values_there_is_nothing_to_draw():
    alone = {"means": [row("none", 0.5, subset=0.5)], "rows": [row("teacher", 0.9)]}

    assert charts(alone) == []


def test_a_study_without_seeds_is_drawn_from_its_rows():
    rows = [
        {"step": "kd", "values": {"ratio": ratio}, "accuracy": None, "val_accuracy": 1 - ratio} for ratio in (0.5, 0.75)
    ]

    (chart,) = charts({"means": [], "rows": rows})

    assert chart.panels == [Panel("", {"kd": [Point(0.5, 0.5), Point(0.75, 0.25)]}, {})]


def test_what_is_exported_is_drawn_against_its_costs():
    files = [
        {"step": step, "values": {}, "accuracy": accuracy, "latency_ratio": ratio, "macs": macs, "file_bytes": size}
        for step, accuracy, ratio, macs, size in (
            ("teacher", 0.99, 1.0, 200, 4000),
            ("small", 0.97, 0.5, 20, 1000),
            ("small", 0.98, 0.75, 40, 2000),
        )
    ]
    # A checkpoint has no measured latency, so it is in no panel.
    rows = [*files, {"step": "checkpoint", "values": {}, "accuracy": 0.5, "macs": 999}]

    (chart,) = charts({"means": [], "rows": rows})

    assert (chart.title, chart.x) == ("test accuracy against costs", "fraction of the largest")
    assert [panel.title for panel in chart.panels] == ["latency", "MACs", "bytes"]
    assert chart.panels[1].lines == {
        "teacher": [Point(1.0, 0.99)],
        "small": [Point(0.1, 0.97), Point(0.2, 0.98)],
    }
    assert chart.panels[2].lines["small"] == [Point(0.25, 0.97), Point(0.5, 0.98)]
    assert charts({"means": [], "rows": rows[:1]}) == []


def test_costs_have_no_interval_of_two_seeds():
    def mean(seeds, ratio):
        costs = {"latency_ratio": ratio, "macs": 20, "file_bytes": 1000}
        return {"step": "small", "values": {}, "seeds": seeds, "accuracy": 0.9, **costs} | {
            "accuracy_low": 0.1,
            "accuracy_high": 1.7,
        }

    for seeds, interval in ((2, (None, None)), (3, (0.1, 1.7))):
        (chart,) = charts({"means": [mean(seeds, 1.0), mean(seeds, 0.5)], "rows": []})
        assert {(point.low, point.high) for point in chart.points()} == {interval}


def test_a_study_of_many_numbers_has_a_bounded_number_of_panels():
    rows = [row("kd", 0.5, **{f"k{key}": number >> key & 1 for key in range(20)}) for number in range(200)]
    drawn = charts({"means": rows, "rows": []})
    assert sum(len(chart.panels) for chart in drawn) == MOST_PANELS
    assert [chart.cut for chart in drawn] == [*[False] * (len(drawn) - 1), True]
    few = charts({"means": [row("kd", 0.5, ratio=0.5), row("kd", 0.6, ratio=0.8)], "rows": []})
    assert [chart.cut for chart in few] == [False]


def test_what_is_no_number_is_not_drawn():
    damaged = {"accuracy_low": "x", "accuracy_high": [1]}
    rows = [row("kd", 0.5, ratio=ratio) | damaged for ratio in (0.5, 0.8, float("nan"), 1e200)]
    (chart,) = charts({"means": rows, "rows": []})
    assert [(point.x, point.low, point.high) for point in chart.points()] == [(0.5, None, None), (0.8, None, None)]


def test_a_title_has_what_differs_between_the_panels():
    rows = [row("kd", 0.5, lr=lr, ratio=0.5, decay=decay) for lr in (0.1, 0.2) for decay in (0.01, 0.02)]
    over_lr, over_decay = charts({"means": rows, "rows": []})
    assert [panel.title for panel in over_lr.panels] == ["decay 0.01", "decay 0.02"]
    assert [panel.title for panel in over_decay.panels] == ["lr 0.1", "lr 0.2"]


def test_a_text_in_place_of_the_number_is_a_level():
    rows = [row("kd", accuracy, temperature=value) for value, accuracy in ((1, 0.5), (2, 0.6), ("4->1", 0.7))]
    (chart,) = charts({"means": rows, "rows": []})
    (panel,) = chart.panels
    assert [point.x for point in panel.lines["kd"]] == [1, 2]
    assert panel.level == {"kd 4->1": 0.7}
