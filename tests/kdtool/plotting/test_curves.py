"""Losses of different kinds do not share an axis."""

import re

from kdtool.plotting.svg import draw_curves


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
