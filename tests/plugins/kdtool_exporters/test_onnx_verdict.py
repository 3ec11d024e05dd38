"""When a file of lower precision is worth having."""

import pytest

from kdtool_exporters.onnx_verdict import verdict


def accuracy(error, images=1000):
    return {"error": error, "accuracy": 1 - error, "images": images}


def latency(ratio, noise=0.03):
    return {"ratio": ratio, "noise": noise}


@pytest.mark.parametrize(
    ("before", "after", "ratio", "worth", "why"),
    [
        (0.05, 0.05, 0.4, True, "it takes 0.40 of the float file's time at +0.00% accuracy"),
        # Twice the errors for 0.4 of the time: 2 * 0.4 < 1.
        (0.05, 0.10, 0.4, True, "at -5.00% accuracy"),
        # Three times the errors: 3 * 0.4 > 1.
        (0.05, 0.15, 0.4, False, "it loses more than it gains: 3.00 times the errors (5.00% to 15.00%)"),
        (0.05, 0.05, 1.5, False, "it takes 1.50 times as long as the float file"),
        (0.05, 0.05, 1.02, True, "it is as fast as the float file at +0.00% accuracy"),
        (0.05, 0.06, 0.99, False, "it loses more than it gains: 1.20 times the errors"),
        (0.05, 0.04, 0.9, True, "at +1.00% accuracy"),
        # No error counts as one image of 1000.
        (0.0, 0.001, 0.5, True, "at -0.10% accuracy"),
        (0.0, 0.002, 0.5, False, "2.00 times the errors"),
    ],
)
def test_what_is_lost_and_gained(before, after, ratio, worth, why):
    found = verdict(accuracy(before), accuracy(after), latency(ratio))
    assert found[0] is worth
    assert why in found[1]


def test_what_is_not_known():
    assert verdict(accuracy(0.1), accuracy(0.1), None) == (None, "its latency was not measured")
    assert verdict(None, None, latency(0.4)) == (True, "it takes 0.40 of the float file's time")
    assert verdict(None, None, latency(1.4))[0] is False
