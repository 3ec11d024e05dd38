"""Metrics that are measured once: of the same network on the same images, and of nothing else."""

import copy
import math

import pytest
import torch

from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training import evaluate as module
from kdtool.training.engine import engine_for
from kdtool.training.evaluate import evaluate_once, images_for_a_loss
from kdtool.training.options import Training


def test_the_same_network_on_the_same_images_is_measured_once(digits, monkeypatch):
    measured = []
    real = module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda *args, **options: measured.append(1) or real(*args, **options))
    monkeypatch.setattr(module, "_known", {})
    options = NetworkOptions(image_size=8, in_channels=1)
    network = create("kdtool:lenet-300-100", options=options, data=None, own={}, seed=0)
    engine = engine_for(Training(device="cpu", precision="fp32"), 128, network)
    first = evaluate_once(network, digits.val, engine)
    first["note"] = "of the caller"
    assert evaluate_once(copy.deepcopy(network), digits.val, engine).keys() == first.keys() - {"note"}
    assert len(measured) == 1
    evaluate_once(network, digits.test, engine)
    other = digits.normalised((0.5,), (0.5,))
    evaluate_once(network, other.val, engine)
    with torch.no_grad():
        network.module.fc3.bias.add_(torch.arange(10.0))
    assert evaluate_once(network, digits.val, engine)["accuracy"] != first["accuracy"]
    assert len(measured) == 4
    # A cell of a notebook with the class of the network ran again.
    monkeypatch.setattr(type(network.module), "forward", lambda self, images: torch.zeros(len(images), 10))
    assert evaluate_once(network, digits.val, engine)["loss"] == pytest.approx(math.log(10))
    assert len(measured) == 5


def test_a_loss_of_maps_is_measured_on_no_more_images_than_tell_enough():
    assert images_for_a_loss(400, 100).tolist() == list(range(400))
    assert images_for_a_loss(1000, 100).tolist() == list(range(0, 1000, 2))
    assert images_for_a_loss(6000, 5400).tolist() == list(range(0, 6000, 5))
    assert len(images_for_a_loss(6000, 54_000)) == 6000


def test_the_balanced_accuracy_is_measured_where_it_selects(digits):
    options = NetworkOptions(image_size=8, in_channels=1)
    network = create("kdtool:lenet-300-100", options=options, data=None, own={}, seed=0)
    engine = engine_for(Training(device="cpu", precision="fp32"), 128, network)
    plain, balanced = (evaluate_once(network, digits.val, engine, how) for how in ("accuracy", "balanced-accuracy"))
    assert "balanced_accuracy" not in plain
    assert {key: balanced[key] for key in plain} == plain
    logits, labels = module.outputs(network.module, digits.val)
    right = logits.argmax(1) == labels
    recalls = [right[labels == label].float().mean().item() for label in labels.unique()]
    assert balanced["balanced_accuracy"] == pytest.approx(sum(recalls) / len(recalls))
