"""Checkpoints as folders of JSON and safetensors."""

import json
import math
import pickle

import pytest
import torch

import kdtool
from kdtool.errors import Error
from kdtool.utils.tensor_folder import read_folder, write_folder

CONTENT = {
    "format": "kdtool",
    "weights": {"b": torch.arange(3.0), "a": torch.tensor(2), "half": torch.ones(2, dtype=torch.bfloat16)},
    "architecture": {"size": (3, 3), "list": [1, (2.5, None)], "buffer": torch.eye(2), "text": "größer"},
    "numbers": {1: "one", "nan": math.inf},
    "odd": {"$tuple": True},
}


def test_what_goes_in_comes_out(tmp_path):
    write_folder(tmp_path, CONTENT)
    again = read_folder(tmp_path)
    assert list(again["weights"]) == ["b", "a", "half"]
    for name, tensor in CONTENT["weights"].items():
        assert again["weights"][name].dtype == tensor.dtype
        assert torch.equal(again["weights"][name], tensor)
    assert torch.equal(again["architecture"].pop("buffer"), torch.eye(2))
    expected = {key: value for key, value in CONTENT["architecture"].items() if key != "buffer"}
    assert again["architecture"] == expected
    assert (again["numbers"], again["odd"]) == (CONTENT["numbers"], CONTENT["odd"])
    json.loads((tmp_path / "kdtool.json").read_text(), parse_constant=pytest.fail)


def test_a_folder_without_other_tensors_has_two_files(tmp_path):
    write_folder(tmp_path, {"weights": {"a": torch.ones(1)}})
    assert {file.name for file in tmp_path.iterdir()} == {"kdtool.json", "model.safetensors"}


def damaged(change):
    def apply(folder):
        content = json.loads((folder / "kdtool.json").read_text())
        change(content)
        (folder / "kdtool.json").write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "kdtool.json").write_text("{"), "kdtool.json: cannot be read: it is no JSON"),
        (lambda folder: (folder / "kdtool.json").write_text("[" * 10**5), "kdtool.json: cannot be read"),
        (lambda folder: (folder / "kdtool.json").write_text("[]"), "does not name the weights"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: no such file"),
        (lambda folder: (folder / "kdtool.safetensors").unlink(), "kdtool.json: damaged: an entry is malformed"),
        (lambda folder: (folder / "model.safetensors").write_bytes(pickle.dumps({})), "which could run code"),
        (damaged(lambda content: content["weights"].pop()), "has other weights than kdtool.json names"),
        (damaged(lambda content: content["weights"].append("a")), "has other weights than kdtool.json names"),
        (damaged(lambda content: content.update(odd={"$code": "1"})), "an entry is malformed"),
        (damaged(lambda content: content.update(odd={"$dict": 3})), "an entry is malformed"),
    ],
)
def test_a_damaged_folder_is_told_in_one_line(tmp_path, change, message):
    write_folder(tmp_path, CONTENT)
    change(tmp_path)
    with pytest.raises(Error, match=message) as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_weights_than_were_written_are_noticed(tmp_path, teacher_path):
    folder = tmp_path / "net"
    kdtool.export(teacher_path, "hub-folder", output=folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights[next(iter(weights))] += 1
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(Error, match="the weights are not those that were written"):
        kdtool.load(folder)
