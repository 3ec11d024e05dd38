import dataclasses
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

import kdtool
from kdtool.commands import compare
from kdtool.models.checkpoint import read
from kdtool.plotting import grid


def changed(path, to, change):
    """Write a copy of a checkpoint with another bias of the last layer, and return its path."""
    checkpoint = read(path)
    last = [module for module in checkpoint.module.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        change(last.bias)
    return checkpoint.save(to).path


@pytest.fixture(scope="module")
def three(teacher_path, tmp_path_factory):
    """The teacher, a network that nearly always predicts 0, and a network that nearly always predicts 1."""
    folder = tmp_path_factory.mktemp("three")
    zero = changed(teacher_path, folder / "zero.pt", lambda bias: bias[0].add_(100.0))
    one = changed(teacher_path, folder / "one.pt", lambda bias: bias[1].add_(100.0))
    return teacher_path, zero, one


def test_two_by_hand(three, digits):
    result = kdtool.compare(three[1], three[2])
    labels = digits.test.labels
    zeros, ones = int((labels == 0).sum()), int((labels == 1).sum())
    assert result["a"]["accuracy"] == pytest.approx(zeros / len(labels))
    assert (result["only_a_right"], result["only_b_right"]) == (zeros, ones)
    assert result["classified_differently"] == result["images"] == len(labels)
    assert result["agreement"] == 0
    assert result["l2"] == pytest.approx(100 * 2**0.5, rel=1e-5)
    assert result["mcnemar"]["test"] == "chi-square"
    # Its confidence is nearly 1 for every image; it is correct for the zeros alone.
    assert result["a"]["calibration_error"] == pytest.approx(1 - zeros / len(labels), abs=1e-3)
    assert result["a"]["accuracy_low"] < result["a"]["accuracy"] < result["a"]["accuracy_high"]
    assert result["a"]["file_bytes"] == three[1].stat().st_size


def test_more_are_compared_in_pairs(three):
    result = kdtool.compare(*three)
    assert [model["checkpoint"] for model in result["models"]] == [str(path) for path in three]
    assert [(pair["a"], pair["b"]) for pair in result["pairs"]] == list(itertools.combinations(range(3), 2))
    for pair in result["pairs"]:
        alone = kdtool.compare(three[pair["a"]], three[pair["b"]])
        assert {key: value for key, value in pair.items() if key not in ("a", "b")} == {
            key: alone[key] for key in pair if key not in ("a", "b")
        }
    assert result["all_agree"] == 0


def test_classes_in_another_order_are_matched_by_name(teacher_path, tmp_path):
    other = read(teacher_path)
    order = [1, 2, 0, *range(3, 10)]  # unlike a swap, it differs from its inverse
    other.data = dataclasses.replace(other.data, classes=tuple(other.data.classes[old] for old in order))
    last = [module for module in other.module.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.copy_(last.weight[order])
        last.bias.copy_(last.bias[order])
    result = kdtool.compare(teacher_path, other.save(tmp_path / "turned.pt"))
    assert (result["classified_differently"], result["l2"]) == (0, pytest.approx(0, abs=1e-5))
    assert result["a"]["accuracy"] == result["b"]["accuracy"] > 0.5


def test_other_classes_inputs_and_images_are_refused(teacher_path, tmp_path):
    for shape, says in (({"classes": 7, "image_size": 8}, "classes 10 and 7"), ({"image_size": 16}, "input")):
        other = kdtool.teacher("kdtool:lenet-300-100", **shape, output=tmp_path / "o.pt", force=True)
        with pytest.raises(kdtool.Error, match=says):
            kdtool.compare(teacher_path, other)
    odd = read(teacher_path)
    odd.data = type(odd.data)(**{**odd.data.as_data(), "split_seed": 9})
    with pytest.raises(kdtool.Error, match="remember different val images; name the data set for all with --data"):
        kdtool.compare(teacher_path, odd, split="val")


def test_the_picture_holds_the_images_as_they_are(three, tmp_path, digits, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        grid, "grid", lambda *args: drawn.update(zip(("images", "captions", "title"), args[:3], strict=True))
    )
    kdtool.compare(*three[1:], picture=tmp_path / "differ.png")
    labels = digits.test.labels
    assert len(drawn["images"]) == len(drawn["captions"]) == compare.MAX_IMAGES
    assert drawn["captions"][0] == f"true: {labels[0]}\nA: 0\nB: 1"
    assert drawn["title"].startswith(f"{len(labels)} of {len(labels)} test images get different classes; the first 64")
    assert "A = zero.pt, B = one.pt" in drawn["title"]
    # scikit-learn's digits are multiples of 1/16.
    assert np.allclose(drawn["images"] * 255, np.round(drawn["images"] * 255), atol=1e-2)
    assert (drawn["images"].min(), drawn["images"].max()) == (0, 1)


def test_a_picture_is_written_even_where_nothing_differs(teacher_path, tmp_path):
    target = tmp_path / "differ.png"
    kdtool.compare(teacher_path, teacher_path, picture=target)
    assert Image.open(target).size[0] > 100
    with pytest.raises(kdtool.UsageError, match="exists already"):
        kdtool.compare(teacher_path, teacher_path, picture=target)


@pytest.mark.parametrize(
    ("number", "channels"), [(1, 3), *(pytest.param(*more, marks=pytest.mark.slow) for more in ((64, 1), (9, 2)))]
)
def test_a_grid(tmp_path, number, channels):
    images = np.random.default_rng(0).random((number, 8, 8, channels), dtype=np.float32)
    grid.grid(images, ["true: $5\nA: b$"] * number, "title", tmp_path / "grid.png")
    width, height = Image.open(tmp_path / "grid.png").size
    assert width > 200
    assert (height > width) == (number == 64)


@pytest.mark.slow
def test_latency_is_the_ratio_to_the_first(teacher_path, tmp_path):
    small = kdtool.refine(teacher_path, times=3, output=tmp_path / "small.pt")
    result = kdtool.compare(teacher_path, small, latency=True)
    assert result["b"]["latency_ratio"] < 1
    assert result["b"]["latency"]["ratio_high"] >= result["b"]["latency_ratio"]
    assert "latency" not in result["a"]
