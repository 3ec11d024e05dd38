import argparse
import io
import json
import types
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kdtool import Error
from kdtool.models.weight_files import read_weights, told_in

CLASSES = ("cat", "dog", "Änte")


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def state():
    return dict(
        nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(2, 4, 3),
                norm=nn.BatchNorm2d(4),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                fc=nn.Linear(4, 3),
            )
        ).state_dict()
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pth"


def test_formats(state, tmp_path):
    torch.save(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "old.pt"):
        assert equal(read_weights(tmp_path / name), state)
    safe = read_weights(str(tmp_path / "a.safetensors"))
    assert equal({name: safe[name] for name in state}, state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"state_dict": {"zero": torch.zeros(1)}, "state_dict_ema": state},
        lambda state: {"model": {"zero": torch.zeros(1)}, "ema": state},
        lambda state: {"model": {"zero": torch.zeros(1)}, "ema": {"module": state, "decay": 0.999}},
        lambda state: {"my_net": state, "epoch": 3, "optimizer": {"state": {}, "lr": 0.1}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {**state, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda state: {"best": torch.ones(1), "my_net": state},
        lambda state: OrderedDict((name, nn.Parameter(tensor, False)) for name, tensor in state.items()),
    ],
)
def test_what_training_scripts_put_around_it(wrap, state, file):
    torch.save(wrap(state), file)
    assert equal(read_weights(file), state)


def test_tied_weights_are_read(state, file):
    state["tied"] = state["fc.weight"]
    torch.save(state, file)
    assert torch.equal(read_weights(file)["tied"], state["fc.weight"])


def test_numbers_that_are_not_finite_are_told(state, file, caplog):
    state["fc.weight"][0, 0] = float("nan")
    torch.save(state, file)
    read_weights(file)
    assert "1 of 9 tensors hold numbers that are not finite (fc.weight)" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "lr": 0.1}, "a dict of epoch, lr"),
        ({}, "an empty dict"),
        ([1, 2], "but list"),
        ({"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}}, "a dict of a, b"),
        ({"format": "kdtool", "version": 1}, "a kdtool checkpoint already"),
    ],
)
def test_content_that_is_no_state_dict(content, message, file):
    torch.save(content, file)
    with pytest.raises(Error) as raised:
        read_weights(file)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{file}: ")


def test_what_was_saved_in_memory_is_the_same_file(state, file):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    file.write_bytes(buffer.getvalue())
    assert equal(read_weights(file), state)


def test_the_parts_of_a_network(state, file):
    parts = {
        key: {name: tensor for name, tensor in state.items() if name.startswith("fc") == (key == "head")}
        for key in ("backbone", "head")
    }
    torch.save(parts, file)
    assert set(read_weights(file)) == {f"{'head' if name.startswith('fc') else 'backbone'}.{name}" for name in state}


def test_a_choice_between_weights_is_said(state, file, caplog):
    torch.save({"state_dict": {"zero": torch.zeros(1)}, "state_dict_ema": state, "optimizer": {"lr": 0.1}}, file)
    assert equal(read_weights(file), state)
    assert "holds weights as state_dict_ema, state_dict; those of state_dict_ema are read" in caplog.text


# How images were prepared


def prepared(**said):
    return {"crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5, 0.4, 0.3], "std": (0.2,), "lr": 0.1, **said}


@pytest.mark.parametrize(
    ("args", "images"),
    [
        *(
            (kind(**prepared()), {"mean": (0.5, 0.4, 0.3), "std": (0.2,), "crop": 0.9, "interpolation": "bicubic"})
            for kind in (dict, argparse.Namespace, types.SimpleNamespace)
        ),
        (
            prepared(mean=None, std=np.float64(0.2), crop_pct=1),
            {"std": (0.2,), "crop": 1.0, "interpolation": "bicubic"},
        ),
        (prepared(mean=[124.0], std=[0.2, 0], crop_pct=1.1, interpolation="random"), {}),
        (prepared(mean=[], std=["a"], crop_pct="0.9", interpolation=None), {}),
        (
            {"val_resize_size": 256, "val_crop_size": 224, "interpolation": "bilinear"},
            {"crop": 0.875, "interpolation": "bilinear"},
        ),
        (argparse.Namespace(lr=0.1), {}),
        ([1], {}),
    ],
)
def test_what_the_arguments_of_a_script_tell_of_its_images(args, images, state, file):
    torch.save({"state_dict": state, "args": args}, file)
    assert told_in(file).images == images


@pytest.mark.parametrize(
    ("args", "size"),
    [
        ({"img_size": 64, "input_size": None}, 64),
        ({"img_size": 64, "input_size": [3, 96, 96]}, 96),
        ({"input_size": (1, 96, 64), "img_size": "64"}, None),
        ({"val_crop_size": np.int64(176)}, 176),
        ({"img_size": 0}, None),
        ({"img_size": True}, None),
        ({"img_size": 10**9}, None),
        ({}, None),
    ],
)
def test_the_size_of_the_images(args, size, state, file):
    torch.save({"state_dict": state, "args": args}, file)
    assert told_in(file).size == size


def test_a_crop_that_kdtool_does_not_make_is_said(state, file, caplog):
    torch.save({"state_dict": state, "args": {"crop_mode": "center"}}, file)
    told_in(file)
    assert not caplog.text
    torch.save({"state_dict": state, "args": {"crop_mode": "squash"}}, file)
    told_in(file)
    assert "was trained with crop mode squash, which kdtool does not have; images are cropped to their" in caplog.text


# Names of classes


def numbered(names):
    return {name: number for number, name in enumerate(names)}


def by_number(names):
    return dict(enumerate(names))


@pytest.mark.parametrize(
    "beside",
    [
        {"classes": list(CLASSES)},
        {"classes": np.array(CLASSES)},
        {"class_names": [np.str_(name) for name in CLASSES]},
        {"class_to_idx": numbered(CLASSES)},
        {"class_to_idx": dict(reversed(numbered(CLASSES).items()))},
        {"class_to_idx": {name: np.int64(number) for name, number in numbered(CLASSES).items()}},
        {"class_to_idx": defaultdict(int, numbered(CLASSES))},
        {"idx_to_class": by_number(CLASSES)},
        {"idx_to_class": {np.int64(number): name for number, name in by_number(CLASSES).items()}},
        {"config": {"id2label": {str(number): name for number, name in by_number(CLASSES).items()}}},
        {"meta": {"CLASSES": CLASSES}},
        {"meta": {"dataset_meta": {"classes": CLASSES}}},
        {"hyper_parameters": {"label_names": list(CLASSES), "lr": 0.1}},
        {"names": by_number(CLASSES)},
        {"classes": list(CLASSES), "class_to_idx": numbered(CLASSES)},
    ],
)
def test_names_of_classes_are_found_in_their_order(beside, state, file):
    torch.save({"state_dict": state, **beside}, file)
    assert told_in(file).classes == CLASSES
    assert equal(read_weights(file), state)


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"classes": 3},
        {"num_classes": 3},
        {"id2label": {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}},
        {"class_to_idx": {"cat": 1, "dog": 2}},
        {"labels": ["cat", "cat", "dog"]},
        {"names": ["conv.weight", "conv.bias"]},
        {"classes": argparse.Namespace(a=1)},
    ],
)
def test_what_does_not_name_classes(beside, state, file):
    torch.save({"state_dict": state, **beside}, file)
    assert told_in(file).classes is None


@pytest.mark.parametrize("order", [str, int])
def test_numbers_are_names_too_unless_there_are_others(order, state, file):
    """Class folders may be in the order of text, 0, 1, 10, 2, or of numbers."""
    folders = sorted(map(str, range(11)), key=order)
    torch.save({"state_dict": state, "class_to_idx": numbered(folders)}, file)
    assert told_in(file).classes == tuple(folders)
    torch.save({"state_dict": state, "class_to_idx": numbered(CLASSES), "labels": ["0", "1", "2"]}, file)
    assert told_in(file).classes == CLASSES


@pytest.mark.parametrize(
    ("args", "natural"),
    [
        ({"model": "resnet18", "crop_pct": None, "class_map": "", "dataset": ""}, True),
        ({"model": "resnet18", "crop_pct": 0.9}, True),
        ({"model": "resnet18", "crop_pct": 0.9, "class_map": "names.txt"}, False),
        ({"model": "resnet18", "crop_pct": 0.9, "dataset": "torch/image_folder"}, False),
        ({"model": "resnet18", "val_crop_size": 224}, False),
    ],
)
def test_the_training_script_of_timm_is_known_by_its_arguments(args, natural, state, file):
    torch.save({"state_dict": state, "args": argparse.Namespace(**args)}, file)
    assert told_in(file).natural is natural


def test_names_that_contradict_each_other_are_refused(state, file):
    torch.save({"state_dict": state, "classes": list(CLASSES), "meta": {"CLASSES": list(reversed(CLASSES))}}, file)
    with pytest.raises(Error, match=r"names its classes in several ways \(classes, meta.CLASSES\)"):
        told_in(file)


def test_the_header_of_a_safetensors_file(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors", metadata={"format": "pt", "id2label": json.dumps(by_number(CLASSES))})
    assert told_in(tmp_path / "w.safetensors").classes == CLASSES
    save_file(state, tmp_path / "none.safetensors")
    assert told_in(tmp_path / "none.safetensors").classes is None
