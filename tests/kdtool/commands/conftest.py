"""Two networks of different conventions: how they normalise images, and the order of their classes."""

import dataclasses

import pytest
import torch
from torch import nn

import kdtool
from kdtool.models.checkpoint import read

ORDER = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
NETWORK = "timm:test_resnet"
IMAGES = {"data": "digits", "subset": 0.2, "image_size": 16, "augment": "none", "device": "cpu"}
TRAINED = {**IMAGES, "lr": 1e-2, "batch_size": 32, "epochs": 5}


def reordered(path, to):
    """Write a copy of a checkpoint with its classes, and the rows of its classifier, in another order."""
    checkpoint = read(path)
    last = [module for module in checkpoint.module.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(last.weight[ORDER])
        last.bias.copy_(last.bias[ORDER])
    classes = tuple(checkpoint.data.classes[index] for index in ORDER)
    checkpoint.data = dataclasses.replace(checkpoint.data, classes=classes)
    return checkpoint.save(to).path


def _score(path, split="val", **options):
    (row,) = kdtool.evaluate(path, split=split, device="cpu", **options)
    return {key: row[key] for key in ("split", "accuracy", "error", "images")}


def _recorded(checkpoint, split="val"):
    (row,) = [row for row in checkpoint.metrics if row["split"] == split]
    return {key: row[key] for key in ("split", "accuracy", "error", "images")}


def _row(checkpoint, model):
    (found,) = [row for row in checkpoint.history[-1]["rows"] if row["model"] == model]
    return {"accuracy": found["val_accuracy"], "error": found["error"]}


def _row_of(path):
    return {"accuracy": _score(path)["accuracy"], "error": _score(path, "test")["error"]}


@pytest.fixture
def score():
    """Return a function: the metrics of a file, measured now."""
    return _score


@pytest.fixture
def recorded():
    """Return a function: the metrics that a checkpoint records."""
    return _recorded


@pytest.fixture
def row():
    """Return a function: the errors in the row of a model of the run's table."""
    return _row


@pytest.fixture
def row_of():
    """Return a function: the errors of a file, as a row has them."""
    return _row_of


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("conventions")


@pytest.fixture(scope="package")
def teacher(folder):
    """A teacher whose images are dark and whose classes are shuffled."""
    kdtool.teacher(NETWORK, **TRAINED, mean=(0.0,), std=(0.05,), output=folder / "plain.pt")
    path = reordered(folder / "plain.pt", folder / "teacher.pt")
    assert _score(path) == _score(folder / "plain.pt")
    return path


@pytest.fixture(scope="package")
def student(folder):
    """A student with the normalisation and the order of classes of the data set."""
    kdtool.teacher(NETWORK, **TRAINED, seed=1, output=folder / "student.pt")
    return folder / "student.pt"


@pytest.fixture(scope="package")
def small(folder, student):
    """A student that is smaller than an assistant."""
    return kdtool.refine(student, "halve", times=2, init="inherit", output=folder / "small.pt").path
