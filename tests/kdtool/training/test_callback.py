"""What a callback gives the log of an epoch."""

import json

import numpy as np
import pytest
import torch

import kdtool
from kdtool.plugins.method_code import MethodError
from kdtool.training.callback import LOGGED, VALIDATION, Callback, logged_by


class Says(Callback):
    """Return something after each epoch."""

    def __init__(self, values):
        self.values = values

    def after_epoch(self, module, epoch):
        return self.values


def test_tensors_of_one_number_are_numbers_of_the_log():
    values = {"scale": torch.tensor(0.5), "open": np.int64(3), "state": "on", "kl": None}
    assert json.dumps(logged_by(Says(values), None, 1)) == '{"scale": 0.5, "open": 3, "state": "on", "kl": null}'


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": 1.0, "epoch": 77, "mine": 1}, "returned loss, epoch, which kdtool logs itself; choose other names"),
        ({"val_accuracy": 1.0}, "returned val_accuracy, which kdtool logs itself"),
        ({"norms": torch.ones(2)}, "returned Tensor as norms; the log takes numbers and texts"),
        (None, "returned NoneType, not numbers by their names"),
        ({1: 2.0}, "returned dict, not numbers by their names"),
    ],
)
def test_what_the_log_cannot_hold_is_refused_with_the_name_of_the_callback(values, message):
    with pytest.raises(MethodError, match=rf"^Says\.after_epoch\(\) {message}"):
        logged_by(Says(values), None, 1)


def test_the_names_that_are_refused_are_those_of_the_log(teacher_path, tmp_path):
    options = {"student": "kdtool:lenet-300-100", "epochs": 1, "subset": 0.1, "device": "cpu", "ema": 0.5}
    kdtool.distill(teacher_path, "kd", output=tmp_path / "s.pt", **options)
    row = json.loads((tmp_path / "s.run" / "metrics.jsonl").read_text())
    assert {name for name in row if not name.startswith(VALIDATION)} == set(LOGGED)
