"""Weights that other programs trained: what their file tells, and what is said of it."""

import argparse
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import kdtool
from kdtool.commands.inputs import as_teachers, data_for
from kdtool.models.checkpoint import read

CLASSES = ("top", "middle", "bottom")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Ten images of 8x8 pixels of each class, with a stripe; the folders sort as bottom, middle, top."""
    root = tmp_path_factory.mktemp("images")
    for number, name in enumerate(CLASSES):
        (root / name).mkdir()
        for index in range(10):
            pixels = np.full((8, 8), 5 * index, dtype=np.uint8)
            pixels[2 * number : 2 * number + 3] += 150
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return f"folder:{root}"


@pytest.fixture(scope="module")
def state(images, tmp_path_factory):
    """The weights of a network that tells the classes apart, with outputs in the order of CLASSES."""
    made = kdtool.teacher(
        "kdtool:lenet-300-100",
        data=images, epochs=15, lr=0.1, batch_size=8, augment="none", mean=(0.5,), std=(0.5,),
        output=tmp_path_factory.mktemp("trained") / "net.pt",
    )  # fmt: skip
    assert made.metric("test", "accuracy") == 1
    order = [made.data.classes.index(name) for name in CLASSES]
    state = dict(made.module.state_dict())
    return {**state, "fc3.weight": state["fc3.weight"][order], "fc3.bias": state["fc3.bias"][order]}


def build(state, tmp_path, *, data=None, **beside):
    torch.save({"state_dict": state, "best_acc1": np.float64(99.5), **beside}, tmp_path / "w.pth")
    trained = {"data": data, "epochs": 0, "mean": (0.5,), "std": (0.5,)} if data else {"image_size": 8, "classes": 3}
    return kdtool.teacher("kdtool:lenet-300-100", weights=tmp_path / "w.pth", output=tmp_path / "t.pt", **trained)


def test_the_labels_are_in_the_order_of_the_file(state, images, tmp_path, caplog):
    made = build(state, tmp_path, data=images, class_to_idx={name: number for number, name in enumerate(CLASSES)})
    assert made.data.classes == CLASSES
    assert made.metric("test", "accuracy") == 1
    assert "its validation and test split may not be held out from that training" in caplog.text
    entry = read(tmp_path / "t.pt").history[0]
    assert entry["trained_elsewhere"] is True
    assert entry["held_out"] is False


def test_without_names_the_outputs_are_taken_in_the_order_of_the_folders(state, images, tmp_path):
    made = build(state, tmp_path, data=images)
    assert made.data.classes == tuple(sorted(CLASSES))
    assert made.metric("test", "accuracy") < 0.5


def test_folders_are_sorted_as_by_timm_if_it_has_trained_the_weights(state, images, tmp_path, caplog):
    folder = tmp_path / "numbers"
    for name, number in zip(CLASSES, ("2", "9", "10"), strict=True):
        shutil.copytree(f"{images.removeprefix('folder:')}/{name}", folder / number)
    data, args = f"folder:{folder}", {"model": "lenet", "crop_pct": 1.0}
    made = build(state, tmp_path, data=data, args=args)
    assert made.data.classes == ("2", "9", "10")
    assert made.metric("test", "accuracy") == 1
    assert f"its outputs are taken for those of {data} in this order: 2, 9, 10 (as timm sorts them)" in caplog.text
    for place in "ab":
        (tmp_path / place).mkdir()
    build(state, tmp_path / "a", args=args)
    (row,) = kdtool.evaluate(tmp_path / "a/t.pt", data=data, mean=(0.5,), std=(0.5,))
    assert row["accuracy"] == 1
    assert build(state, tmp_path / "b", data=data).data.classes == ("10", "2", "9")
    assert "in this order: 10, 2, 9 (timm would sort them 2, 9, 10)" in caplog.text


def test_numbers_that_the_file_names_are_folders_or_count_for_nothing(state, images, tmp_path):
    for name, number in zip(CLASSES, ("2", "9", "10"), strict=True):
        shutil.copytree(f"{images.removeprefix('folder:')}/{name}", tmp_path / "numbers" / number)
    numbers, named = f"folder:{tmp_path / 'numbers'}", {"class_to_idx": {"2": 0, "9": 1, "10": 2}}
    for place in "abc":
        (tmp_path / place).mkdir()
    assert build(state, tmp_path / "a", data=numbers, **named).metric("test", "accuracy") == 1
    assert build(state, tmp_path / "b", data=images, **named).data.classes == tuple(sorted(CLASSES))
    made = build(state, tmp_path / "c", **named)
    for data, names in ((numbers, ("2", "9", "10")), (images, tuple(sorted(CLASSES)))):
        spec = data_for(made, {"data": data, "mean": (0.5,), "std": (0.5,)}).spec
        assert spec.classes == names
        assert as_teachers([made], spec, {})[0].data.classes == names


def test_other_names_are_refused_with_the_differences(state, images, tmp_path):
    with pytest.raises(kdtool.Error, match="it lacks 'lower', it adds 'bottom'"):
        build(state, tmp_path, data=images, classes=["top", "middle", "lower"])
    assert not (tmp_path / "t.pt").exists()


def test_a_later_command_knows_the_names(state, images, tmp_path, caplog):
    made = build(state, tmp_path, classes=list(CLASSES))
    assert made.data is None
    (row,) = kdtool.evaluate(tmp_path / "t.pt", data=images, mean=(0.5,), std=(0.5,))
    assert row["accuracy"] == 1
    assert "in this order" not in caplog.text
    assert "it may have been trained on these images" in caplog.text


def test_a_training_on_other_classes_begins_with_a_fresh_classifier(state, images, tmp_path, caplog):
    seven = {name: tensor.repeat(7, *[1] * (tensor.ndim - 1))[:7] for name, tensor in state.items() if "fc3" in name}
    names = [f"class {number}" for number in range(7)]
    torch.save({"state_dict": {**state, **seven}, "classes": names}, tmp_path / "w.pth")
    options = {"weights": tmp_path / "w.pth", "data": images, "batch_size": 8, "lr": 0.01}
    made = kdtool.teacher("kdtool:lenet-300-100", epochs=1, output=tmp_path / "t.pt", **options)
    assert made.data.classes == tuple(sorted(CLASSES))
    assert made.history[0]["fresh"] == ["fc3.weight", "fc3.bias"]
    assert "its classifier is for 7 classes, and the data set has 3" in caplog.text
    assert "w.pth: does not name its classes" not in caplog.text
    del options["batch_size"], options["lr"]
    with pytest.raises(kdtool.Error, match="it lacks 'class 0'"):
        kdtool.teacher("kdtool:lenet-300-100", epochs=0, output=tmp_path / "u.pt", **options)
    torch.save({**state, **seven}, tmp_path / "w.pth")
    with pytest.raises(kdtool.Error, match=r"is for 7 classes.*give --classes 7 in place of --data$"):
        kdtool.teacher("kdtool:lenet-300-100", epochs=0, output=tmp_path / "u.pt", **options)


def test_names_for_another_number_of_outputs_are_ignored(state, tmp_path, caplog):
    made = build(state, tmp_path, classes=["cat", "dog"])
    assert "classes" not in made.history[0]
    assert "names 2 classes and the network has 3; the names are ignored" in caplog.text


def test_what_is_taken_for_granted_is_said(state, images, tmp_path, caplog):
    build(state, tmp_path, data=images)
    assert (
        "w.pth: does not tell how its images were prepared; crop 1, interpolation bilinear and images of 8 pixels are "
        "used, those of kdtool:lenet-300-100 or of the data; if it was trained with others, give --crop, "
        "--interpolation and --image-size"
    ) in caplog.text
    assert f"w.pth: does not name its classes; its outputs are taken for those of {images} in this order: bottom" in (
        caplog.text
    )


def test_the_arguments_of_the_training_tell_how_images_were_prepared(state, images, tmp_path, caplog):
    args = argparse.Namespace(mean=[0.25], std=[0.4], crop_pct=0.75, interpolation="bicubic")
    torch.save({"state_dict": state, "args": args}, tmp_path / "w.pth")
    options = {"weights": tmp_path / "w.pth", "image_size": 8, "output": tmp_path / "t.pt"}
    spec = kdtool.teacher("kdtool:lenet-300-100", data=images, epochs=0, std=(0.5,), **options).data
    assert (spec.mean, spec.std, spec.crop, spec.interpolation) == ((0.25,), (0.5,), 0.75, "bicubic")
    assert "w.pth: was trained with mean 0.25, crop 0.75 and interpolation bicubic; used here too" in caplog.text
    assert "does not tell how its images were prepared" not in caplog.text
    # A later command knows it, too.
    made = kdtool.teacher("kdtool:lenet-300-100", classes=3, force=True, **options)
    spec = data_for(read(made.path), {"data": images, "interpolation": "box"}).spec
    assert (spec.mean, spec.std, spec.crop, spec.interpolation) == ((0.25,), (0.4,), 0.75, "box")
    assert (made.transform.mean, made.transform.preparation.crop) == ((0.25,), 0.75)


def test_images_have_the_size_of_the_training_of_the_weights(state, images, tmp_path):
    # They are of several sizes, which would be read at 224 pixels.
    folder = shutil.copytree(images.removeprefix("folder:"), tmp_path / "images")
    for number, file in enumerate(folder.rglob("*.png")):
        Image.open(file).resize((150 + number, 150)).save(file)
    torch.save({"state_dict": state, "args": {"img_size": 8}}, tmp_path / "w.pth")
    options = {"weights": tmp_path / "w.pth", "output": tmp_path / "t.pt", "force": True}
    made = kdtool.teacher("kdtool:lenet-300-100", data=f"folder:{folder}", epochs=0, **options)
    assert made.data.image_size == 8
    made = kdtool.teacher("kdtool:lenet-300-100", classes=3, **options)
    assert made.architecture.input == (1, 8, 8)


def test_small_squares_are_enlarged_to_the_size_of_the_training_too(images, tmp_path, caplog):
    network = kdtool.teacher("kdtool:lenet-300-100", classes=3, image_size=12, in_channels=1, output=tmp_path / "n.pt")
    torch.save({"state_dict": network.module.state_dict(), "args": {"img_size": 12}}, tmp_path / "w.pth")
    options = {"weights": tmp_path / "w.pth", "data": images, "epochs": 0, "output": tmp_path / "t.pt"}
    assert kdtool.teacher("kdtool:lenet-300-100", **options).data.image_size == 12  # its images have 8
    assert "w.pth: was trained with images of 12 pixels; used here too" in caplog.text


def test_a_network_that_was_trained_here_is_held_out_from(images, tmp_path, caplog):
    made = kdtool.teacher("kdtool:lenet-300-100", data=images, epochs=0, output=tmp_path / "t.pt")
    assert "held_out" not in made.history[0]
    assert "held out" not in caplog.text
