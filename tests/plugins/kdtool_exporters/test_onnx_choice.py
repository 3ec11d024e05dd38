"""The choice among quantised files, by accuracy, by the distance of their outputs, and by latency."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kdtool import Error
from kdtool_exporters.onnx_choice import Choice, Trial
from kdtool_exporters.onnx_images import calibration_images
from kdtool_exporters.onnx_lower import _restored
from kdtool_exporters.onnx_quantise import Layer, is_transformer


@pytest.fixture
def choice(prepared, patterns, tmp_path):
    """The choice for the network with an outlier."""
    file, layers = prepared
    shutil.copy(file, tmp_path)
    images, _ = calibration_images(patterns, 64, "timm:tiny")
    return Choice("timm:tiny", tmp_path / file.name, layers, patterns, images)


def trial(right, divergence=0.0, way="static"):
    return Trial(Path(f"{way}.onnx"), way, None, (), np.array(right, bool), divergence)


def test_layers_that_lose_most_are_put_back(choice):
    assert choice.float_accuracy > 0.95
    best = choice.int8("minmax", "off", 0.02)
    assert choice.drop(best) > 0.2
    restored = choice.restore(best, 0.02)
    assert choice.drop(restored) <= 0.02
    assert {*restored.kept} == {"wide", "narrow"}
    # The others are quantised still: their weights are integers.
    assert restored.file.stat().st_size != choice.model.stat().st_size


def test_what_cannot_be_met_is_said(choice, monkeypatch):
    best = choice.int8("minmax", "off", None)
    worse = Trial(best.file, "static", "minmax", (), np.zeros(120, bool), 1.0)
    monkeypatch.setattr(Choice, "trial", lambda self, *how: worse)
    with pytest.raises(Error, match=r"^timm:tiny: loses [\d.]+% of the validation images at least.*nothing was writ"):
        choice.restore(best, 0.01)


def test_another_trial_within_the_limit_is_taken_before_a_layer_is_put_back(choice, monkeypatch):
    choice.float_accuracy = 1.0
    nearer, further, worse = (trial([False] * wrong + [True] * (100 - wrong), wrong / 10) for wrong in (1, 2, 9))
    choice.trials = [further, worse, nearer]
    monkeypatch.setattr(Choice, "_order", None)
    assert choice.restore(worse, 0.02) is nearer


def test_no_loss_puts_nothing_back(choice):
    perfect = trial([True] * 120)
    assert choice.restore(perfect, 0.0) is perfect


def test_a_loss_of_exactly_the_limit_is_allowed(choice):
    choice.float_accuracy = 84 / 100
    worse = trial([True] * 83 + [False] * 17)
    assert choice.drop(worse) > 0.01  # 0.010000000000000009
    assert _restored(choice, worse, 0.01) is worse
    assert not choice.trials


def test_all_calibrations_are_tried(choice):
    choice.int8("auto", "off", None)
    assert [entry.calibration for entry in choice.trials] == ["minmax", "percentile", "entropy"]
    assert all(entry.as_data()["way"] == "static" for entry in choice.trials)


def test_the_first_and_the_last_layer_can_stay(choice):
    assert choice.int8("percentile", "on", None).kept == ("stem", "head")


@pytest.mark.parametrize(("ratio", "pays"), [(1.2, False), (1.0, True), (0.8, True)])
def test_ends_in_float_pay_where_they_are_not_slower(choice, tmp_path, monkeypatch, ratio, pays):
    monkeypatch.chdir(tmp_path)
    Path("static.onnx").write_bytes(b"0" * 100)
    Path("large.onnx").write_bytes(b"0" * 120)
    choice.slower = lambda path, other: ratio
    without, nearer = trial([True] * 50 + [False] * 50, 1.0), trial([True] * 50 + [False] * 50, 0.1)
    assert choice._pays(nearer, without) is pays
    as_near, worse = trial([True] * 50 + [False] * 50, 0.9), trial([True] * 20 + [False] * 80, 0.1)
    assert choice._pays(as_near, without) is (ratio < 0.9)
    assert choice._pays(worse, without) is False
    # The larger file has to classify better.
    large, better = trial([True] * 50 + [False] * 50, 0.1, "large"), trial([True] * 80 + [False] * 20, 0.9, "large")
    assert choice._pays(large, without) is False
    assert choice._pays(better, without) is pays


def test_a_difference_by_chance_is_decided_by_the_outputs():
    """51 and 50 of 100 right are as good; 80 and 50 are not (30 > 2 sqrt(30))."""
    base, one_more = trial([True] * 50 + [False] * 50, 0.1), trial([True] * 51 + [False] * 49, 0.2)
    assert base.better_than(one_more)
    assert not one_more.better_than(base)
    many_more = trial([True] * 80 + [False] * 20, 0.3)
    assert many_more.gain(base) == 30
    assert many_more.better_than(base)


@pytest.mark.parametrize(
    ("operators", "transformer"),
    [
        ({"Conv": 100, "Gemm": 500}, False),
        ({"Conv": 100, "MatMul": 500, "Gemm": 10}, True),
        ({"Conv": 500, "MatMul": 100}, False),
        ({"Gemm": 100}, False),
    ],
)
def test_which_networks_are_transformers(choice, operators, transformer):
    choice.layers = [Layer(name, name, weights) for name, weights in operators.items()]
    assert is_transformer(choice.layers) is transformer
    assert ("Relu" in choice.operators) is not transformer


def test_a_way_that_quantises_nothing_of_what_was_asked_for_is_not_tried(choice, monkeypatch):
    choice.layers = [Layer("patches", "Conv", 10), Layer("mlp", "MatMul", 100), Layer("head", "Gemm", 10)]
    tried = []
    monkeypatch.setattr(Choice, "trial", lambda self, way, *how: tried.append(way) or trial([True], 0.0, way))
    for skipped, ways in ((("mlp", "head"), ["static"]), (("mlp", "patches"), ["static", "dynamic"])):
        choice.skipped = skipped
        choice.int8("minmax", "off", None)
        assert tried == ways
        tried.clear()


@pytest.mark.parametrize(
    ("faster", "drop", "taken"), [("dynamic", 0.0, "dynamic"), ("static", 0.0, "static"), ("dynamic", 0.5, "static")]
)
def test_a_transformer_gets_the_faster_way_that_is_good_enough(choice, monkeypatch, faster, drop, taken):
    right = np.ones(120, bool)
    lossy = right.copy()
    lossy[: int(120 * drop)] = False
    monkeypatch.setattr(Choice, "trial", lambda self, way, *how: trial(lossy, 1.0, way))
    choice.slower = lambda path, other: 0.5 if path.stem == faster else 2.0
    assert choice._static_or_dynamic(trial(right, 0.1), 0.01).way == taken
