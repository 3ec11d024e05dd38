"""JSON that every reader takes."""

import json
from pathlib import Path

import pytest

from kdtool.utils.strict_json import dumps


def refuse(name):
    raise AssertionError(name)


def test_numbers_that_are_not_finite_become_null():
    value = {"a": [1.5, float("nan"), (float("inf"), -float("inf"))], "b": {"c": float("nan")}, 3: Path("x"), "n": None}
    text = dumps(value, sort_keys=True)
    plain = json.loads(text, parse_constant=refuse)
    assert plain == {"a": [1.5, None, [None, None]], "b": {"c": None}, "3": "x", "n": None}


def test_what_is_no_data_is_refused():
    with pytest.raises(TypeError):
        dumps({"a": object()})
