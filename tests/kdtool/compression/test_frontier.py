"""What dominates what, and the chart of it."""

import xml.etree.ElementTree as ET

from kdtool.compression.candidates import Candidate, Proposals
from kdtool.compression.costs import Cost, Limits
from kdtool.compression.frontier import charts, rows, settle


def row(model, accuracy, latency, size, macs):
    return {"model": model, "val_accuracy": accuracy, "latency_ratio": latency, "file_bytes": size, "macs": macs}


def test_a_network_is_dominated_by_one_that_is_as_good_in_everything_and_better_in_something():
    table = settle(
        [
            row("a", 0.90, 0.4, 100, 50),
            row("b", 0.90, 0.4, 100, 60),
            row("c", 0.80, 0.4, 100, 50),
            row("d", 0.80, 0.3, 100, 50),
            row("e", 0.80, 0.3, 100, 50),
            row("f", None, 0.1, 1, 1),
        ]
    )
    assert {entry["model"]: entry["dominated_by"] for entry in table} == {
        "a": "", "b": "a", "c": "a", "d": "", "e": "", "f": "",
    }  # fmt: skip
    assert table[0]["model"] == "a"
    assert table[-1]["model"] == "f"


def proposals():
    found = Proposals(Cost(100, 10, 1000, 1.0, 2.0), Limits(latency_ratio=0.5), "a device")
    found.candidates = [
        Candidate("refiners", "halve", {"ratio": 0.5}, cost=Cost(25, 3, 300, 0.48, 0.96)),
        Candidate("pruners", "filter-l1", {"ratio": 0.7}, "int8", Cost(40, 4, 100, 0.45, 0.9)),
    ]
    found.beyond = [Candidate("refiners", "depth", {"blocks": 3}, cost=Cost(60, 6, 600, 0.6, 1.2))]
    return found


def test_rows_have_the_teacher_the_longest_training_of_each_and_what_was_not_trained():
    found = proposals()
    trainings = [
        {"setting": "halve ratio=0.5", "epochs": 1, "accuracy": 0.4, "checkpoint": "a.pt"},
        {"setting": "halve ratio=0.5", "epochs": 3, "accuracy": 0.7, "checkpoint": "a.pt"},
    ]
    table = {entry["model"]: entry for entry in rows(found, found.candidates[:1], trainings, 0.95)}
    assert (table["teacher"]["val_accuracy"], table["teacher"]["within"]) == (0.95, False)
    assert (table["halve ratio=0.5"]["val_accuracy"], table["halve ratio=0.5"]["epochs"]) == (0.7, 3)
    assert table["filter-l1 ratio=0.7 int8"]["val_accuracy"] is None
    assert table["depth blocks=3"]["note"] == "beyond the budget"


def test_there_is_a_chart_for_each_cost_with_names_for_all_that_has_a_colour():
    found = proposals()
    trainings = [
        {"setting": candidate.name, "epochs": 1, "accuracy": accuracy, "checkpoint": "a.pt"}
        for candidate, accuracy in zip(found.candidates, (0.7, 0.8), strict=True)
    ]
    drawn = charts(rows(found, found.candidates, trainings, 0.95), found, "filter-l1 ratio=0.7 int8")
    labels = {"latency": "latency in ms", "size": "ONNX file in MB", "macs": "MACs in millions"}
    assert drawn.keys() == labels.keys()
    for cost, svg in drawn.items():
        texts = [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]
        assert labels[cost] in texts
        assert "validation accuracy" in texts
        # Only the latency has a budget here.
        assert ("budget" in texts) == (cost == "latency")
        for name in ("teacher", "halve", "winner"):
            assert name in texts
