"""Numbers with the digits that say something."""

import pytest

from kdtool.reporting.cells import cell, columns
from kdtool.utils.formatting import shown_value


@pytest.mark.parametrize(
    ("row", "key", "text"),
    [
        # The mean of parameters over seeds was shown as 1.118e+07 ± 6.4.
        ({"parameters": 11181642.4, "parameters_low": 11181636.0, "parameters_high": 11181648.8}, "parameters",
         "11,181,642 ± 6"),
        ({"classified_differently": 82.5, "classified_differently_low": 70.0, "classified_differently_high": 95.0},
         "classified_differently", "82.5 ± 12.5"),
        ({"images": 80.0, "images_low": 70.0, "images_high": 90.0}, "images", "80 ± 10"),
        ({"accuracy": 0.91234, "accuracy_low": 0.9042, "accuracy_high": 0.92048}, "accuracy", "0.9123 ± 0.0081"),
        ({"accuracy": 0.91234, "accuracy_low": 0.6, "accuracy_high": 1.2}, "accuracy", "0.91 ± 0.30"),
        ({"macs": 2_516_608.0, "macs_low": 2_416_608.0, "macs_high": 2_616_608.0}, "macs", "2.52 ± 0.10 M"),
        ({"compression": 4.0, "compression_low": 3.5, "compression_high": 4.5}, "compression", "4.00 ± 0.50x"),
        ({"loss": 12.3, "loss_low": 2.3, "loss_high": 22.3}, "loss", "12 ± 10"),
        # Student's t for two values is 12.7: such an interval says nothing.
        ({"seeds": 2, "error": 0.25, "error_low": 0.0, "error_high": 0.5}, "error", "0.2500"),
        ({"seeds": 3, "error": 0.25, "error_low": 0.2, "error_high": 0.3}, "error", "0.250 ± 0.050"),
        ({"error": 0.25, "error_low": 0.25, "error_high": 0.25}, "error", "0.2500"),
    ],
)  # fmt: skip
def test_intervals(row, key, text):
    assert cell(row, key) == text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("parameters", 11181642.4, "11,181,642"),
        ("classified_differently", 82.5, "82.5"),
        ("classified_differently", 82.0, "82"),
        ("macs", 2516.5, "0.00252 M"),
        ("cpu_seconds", 2.83, "2.8"),
        ("seconds", 12345.678, "12,346"),
        ("loss", 0.0, "0.0000"),
        ("loss", 1.5e-7, "1.5e-07"),
        ("l2", 123456.7, "123,457"),
        ("latency_ms", 0.28914, "0.289"),
        ("latency_ms", 12.345, "12.3"),
    ],
)
def test_single_numbers(key, value, text):
    assert shown_value(key, value) == text


def test_a_column_of_empty_texts_is_left_out():
    assert columns([{"a": "", "b": 1}, {"a": "", "b": None}]) == ["b"]


def test_a_column_stays_in_its_place_where_the_first_row_has_nothing_in_it():
    rows = [{"step": "teacher", "seed": "", "accuracy": 0.9}, {"step": "student", "seed": "0", "accuracy": 0.8}]
    assert columns(rows) == ["step", "seed", "accuracy"]
