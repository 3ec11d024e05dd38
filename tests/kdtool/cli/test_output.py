from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdtool.cli.output import as_json, table, zeros_note


def test_json_is_plain() -> None:
    text = as_json({"a": float("inf"), "b": (Path("x"), 1, None, True)})

    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": ["x", 1, None, True]}


def test_json_has_the_lines_of_python_but_a_list_of_numbers_in_one() -> None:
    plain = {"a": {}, "b": [], "c": [{"d\u00e9": ["x", [], {"e": None}]}, []], "f": True, "g": 'q"', "h": ["x", 1]}
    matrix = [[row * column for column in range(300)] for row in range(300)]

    assert as_json(plain) == json.dumps(plain, indent=2)
    numbers = as_json([[1, None], {"a": [0.5, float("nan")]}])
    assert numbers.splitlines() == ["[", "  [1, null],", "  {", '    "a": [0.5, null]', "  }", "]"]
    text = as_json({"confusion": matrix})
    assert json.loads(text) == {"confusion": matrix}
    assert len(text.splitlines()) == 300 + 4  # one for each class, and those of the braces and brackets


def test_a_table_has_the_columns_that_hold_something() -> None:
    text = table({"a": "first", "b": "second", "c": "third"}, [{"a": "x" * 200, "c": 1}, {"a": "y", "c": None}])

    head, _, long, short = text.splitlines()
    assert head.split() == ["first", "third"]
    assert long.split() == ["x" * 200, "1"]
    assert short == "y"


def test_a_table_of_any_width_has_all_its_numbers():
    columns = {f"c{number}": f"column {number}" for number in range(40)}
    lines = table(columns, [{key: "x" * 400 for key in columns} | {"c39": 0.5}]).splitlines()
    assert lines[0].split() == " ".join(columns.values()).split()
    assert lines[-1].split() == [*["x" * 400] * 39, "0.5000"]


def test_many_zeros_are_remarked_on():
    assert "do not run faster" in zeros_note({"parameters": 100, "nonzero": 20})
    assert zeros_note({"parameters": 100, "nonzero": 99}) == ""
