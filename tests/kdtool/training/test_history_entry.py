"""The entry of a command: typed fields, recorded facts, and plain data that a checkpoint holds."""

import pytest

from kdtool.training.history_entry import HistoryEntry


def entry():
    return HistoryEntry(
        "prune", "kdtool prune", "magnitude", {"ratio": 0.5}, {}, {}, [], "a.pt", {"kdtool": "1"}, "now"
    )


def test_facts_stand_beside_the_fields():
    made = entry()
    made.record(reached={"removed": 0.5}, masked=True)
    made.record(masked=False)
    data = made.as_data()
    assert list(data) == [
        "command", "line", "method", "options", "training", "data", "inputs", "output", "versions", "date",
        "reached", "masked",
    ]  # fmt: skip
    assert (data["options"], data["reached"], data["masked"]) == ({"ratio": 0.5}, {"removed": 0.5}, False)


def test_its_data_are_a_copy():
    made = entry()
    made.record(reached={"removed": 0.5})
    made.as_data()["reached"]["removed"] = 1
    assert made.facts["reached"] == {"removed": 0.5}


def test_a_field_is_not_overwritten_by_a_fact():
    with pytest.raises(ValueError, match="has a field 'options' of its own"):
        entry().record(options={})
