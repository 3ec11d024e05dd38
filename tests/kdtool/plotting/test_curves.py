"""Losses of different kinds do not share an axis."""

import math
import re
import time

import pytest

from kdtool.plotting.curves import draw_curves


def titles(svgs):
    """Return the texts of each panel that name a loss."""
    return [sorted({text for text in re.findall(r">([^<>]*loss[^<>]*)</text>", svg)}) for svg in svgs]


def epochs(phase, count=3, **more):
    return [{"phase": phase, "epoch": n, "loss": 5.0 / n, "val_loss": 1.0 / n, **more} for n in range(1, count + 1)]


def test_the_loss_of_a_method_and_that_of_the_labels_have_axes_of_their_own():
    panels = titles(draw_curves(epochs("kd", val_accuracy=0.5)))
    assert panels[:2] == [["training loss"], ["validation loss (labels)"]]


def test_the_losses_of_a_training_on_labels_share_one():
    panels = titles(draw_curves(epochs("teacher", val_accuracy=0.5), labels_alone=True))
    assert panels[0] == ["loss", "val loss"]


def test_phases_of_different_kinds_have_panels_of_their_own():
    # A stage is selected by its own loss, a distance of maps; the head by the accuracy, with the loss of its method.
    panels = titles(draw_curves([*epochs("stage 1"), *epochs("head", val_accuracy=0.5)]))
    assert panels[:3] == [
        ["loss", "loss: stage 1", "val loss"],
        ["training loss: head"],
        ["validation loss (labels): head"],
    ]


def test_what_only_some_epochs_log_makes_no_other_kind():
    first, *rest = epochs("M1 from M0", val_accuracy=0.5)
    panels = titles(draw_curves([{**first, "gradient_ratio": 3.0}, *rest, *epochs("M2 from M1", val_accuracy=0.5)]))
    assert panels[:2] == [["training loss"], ["validation loss (labels)"]]


def test_what_is_no_number_in_a_log_is_not_drawn():
    wrong = ["x", [], [1.0], {}, True, 1e300, math.nan, -math.inf, 10**400]
    rows = epochs("kd", count=len(wrong))
    without = draw_curves([{**row, "val_loss": None} for row in rows])
    assert draw_curves([{**row, "val_loss": value} for row, value in zip(rows, wrong, strict=True)]) == without


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_axis_of_one_epoch_has_one_number():
    for svg in draw_curves([{"phase": "teacher", "epoch": 1, "loss": 2.0, "val_accuracy": 0.5}]):
        assert texts(svg)[:2] == ["1", "epoch"]


def test_phases_are_named_beside_the_numbers_of_the_epochs():
    phases = [("distill 1 of 2", 20), ("fine-tune", 5), ("too short", 1), ("a name of very many letters", 4)]
    (svg,) = draw_curves([row for phase, count in phases for row in epochs(phase, count, val_loss=None)])
    shown = texts(svg)
    assert {"10", "20", "30", "epoch", "distill 1 of 2", "fine-tune", "a name of very many…"} <= {*shown}
    assert "too short" not in shown


@pytest.mark.slow
def test_a_log_of_any_number_of_phases_and_numbers_is_drawn_in_a_moment():
    started = time.process_time()
    many = [{"phase": f"{n}\n\x1b" * 50, "epoch": 1, "loss": 1.0, f"n{n}": 1.0} for n in range(2000)]
    panels = draw_curves(many)
    assert len(panels) == 32
    assert "\x1b" not in "".join(panels)
    assert time.process_time() - started < 5
