import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kdtool import Error
from kdtool.utils.tensor_files import safe_load, write_tensors


def net():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


@pytest.fixture
def state():
    return dict(net().state_dict())


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pth"


def refusal(path):
    with pytest.raises(Error) as raised:
        safe_load(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


class Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_does_not_run(zipped, file, tmp_path):
    trace = tmp_path / "it-ran"
    torch.save({"fc.weight": Evil(f"touch {trace}")}, file, _use_new_zipfile_serialization=zipped)
    assert "system" in refusal(file)
    file.write_bytes(pickle.dumps(Evil(f"touch {trace}")))
    assert "bare pickle" in refusal(file)
    assert not trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module(zipped, file):
    torch.save(net(), file, _use_new_zipfile_serialization=zipped)
    message = refusal(file)
    assert "torch.nn.modules.container.Sequential" in message
    assert "state_dict" in message


def test_a_torchscript_archive(file):
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            archive.writestr(f"net/{name}", b"")
    assert "TorchScript" in refusal(file)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_half_a_file(zipped, share, state, file):
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    refusal(file)


def test_half_a_safetensors_file(state, file):
    save_file(state, file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "safetensors" in refusal(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, world", "not a file of PyTorch or safetensors"),
        (b"<!DOCTYPE html><html>", "download failed"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "Git LFS pointer"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b'{"weights": [1, 2]}', "JSON"),
    ],
)
def test_other_files(content, message, file):
    file.write_bytes(content)
    assert message in refusal(file)


def test_files_that_are_none(tmp_path):
    assert "no such file" in refusal(tmp_path / "missing.pt")
    assert "directory" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


def test_another_zip_archive(file):
    with open(file, "wb") as handle:
        np.savez(handle, a=np.zeros(3))
    assert "zip archive with other content (a.npy)" in refusal(file)


def test_a_zip_bomb(file):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("archive/data/0", bytes(50_000_000))
    assert file.stat().st_size < 100_000
    assert "compressed" in refusal(file)


def test_parts_that_overlap(state, file):
    torch.save(state, file)
    content = file.read_bytes()
    # Let every entry of the archive's directory claim the size of the whole file.
    at = content.index(b"PK\x01\x02")
    while at >= 0:
        content = content[: at + 20] + struct.pack("<II", len(content), len(content)) + content[at + 28 :]
        at = content.find(b"PK\x01\x02", at + 1)
    file.write_bytes(content)
    refusal(file)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(state, file):
    torch.save(state, file)
    with zipfile.ZipFile(file, "a") as archive:
        name = archive.namelist()[-1]
        archive.writestr(name, archive.read(name))
    assert "two of its entries have the same name" in refusal(file)


def test_a_comment_of_the_archive(state, file):
    torch.save(state, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"PK"
    assert "compressed or altered" in refusal(file)


def claim(state, file, old, new):
    """Save, then replace a number in the index by another of the same length."""
    torch.save(state, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    index = next(name for name in parts if name.endswith("data.pkl"))
    assert old in parts[index]
    parts[index] = parts[index].replace(old, new)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_tensors_that_claim_more_numbers_than_the_file_holds(file):
    # BININT, four bytes: 70,000 numbers become two billion.
    few, many = b"J" + struct.pack("<i", 70_000), b"J" + struct.pack("<i", 2_000_000_000)
    claim({"weight": torch.zeros(70_000)}, file, few, many)
    refusal(file)


def test_tensors_that_repeat_one_number(file):
    torch.save({"weight": torch.zeros(1).expand(10**12)}, file)
    assert "claims more elements than the file has" in refusal(file)


def test_many_tensors_over_the_same_numbers(file):
    shared = torch.zeros(100_000)
    torch.save([shared[:] for _ in range(100)], file)
    assert "its tensors claim 40,000,000 bytes" in refusal(file)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_number_that_becomes_bytes(zipped, file):
    class Zeros:
        def __reduce__(self):
            return bytearray, (100_000_000,)

    torch.save([Zeros()], file, _use_new_zipfile_serialization=zipped)
    assert "bytearray" in refusal(file)


def test_containers_that_nest_without_end(file):
    nested = [torch.zeros(2)]
    for _ in range(100):
        nested = [nested, nested]
    torch.save(nested, file)
    assert isinstance(safe_load(file), list)


def test_tensors_without_plain_numbers(file):
    for tensor in (torch.eye(3).to_sparse(), torch.empty(3, device="meta")):
        torch.save({"weight": tensor}, file)
        assert "sparse, quantised or empty" in refusal(file)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_name_that_is_not_utf8(tmp_path, zipped):
    path = tmp_path / os.fsdecode(b"caf\xe9.pt")
    with open(path, "wb") as file:
        torch.save({"a": torch.arange(3)}, file, _use_new_zipfile_serialization=zipped)
    assert safe_load(path)["a"].tolist() == [0, 1, 2]


def test_numbers_of_numpy_are_written_as_plain_ones(file):
    row = OrderedDict(accuracy=np.float64(0.5), images=np.int64(3))
    rows = [row, dict(row), (np.bool_(True), Path("a"), np.str_("b"))]
    write_tensors(file, {"rows": rows, "size": torch.Size([2]), "weights": net().state_dict()})
    read = safe_load(file)
    assert read["rows"] == [dict(row), dict(row), (True, "a", "b")]
    assert type(read["rows"][0]["accuracy"]) is float
    assert read["weights"]._metadata == net().state_dict()._metadata


def test_what_cannot_be_read_again_is_not_written(file):
    write_tensors(file, {"a": 1})
    for value in (object(), np.zeros(2), Error("x"), {1: [print]}):
        with pytest.raises(Error, match=r"weights.pth.a\[1\]\S*: is a \w+, with which the file could not be"):
            write_tensors(file, {"a": [1, value]})
    assert safe_load(file) == {"a": 1}
    assert [*file.parent.iterdir()] == [file]
