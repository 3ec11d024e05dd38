"""MNIST's idx files: whole, packed, damaged, missing and downloaded."""

import gzip
import os
import struct
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.errors import Error, UsageError
from kdtool.testing.checks import check_dataset
from kdtool_datasets.mnist import MNIST, FashionMNIST


def write_idx(path, values):
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(header + values.to(torch.uint8).numpy().tobytes())


def make(root, folder="MNIST", seed=0):
    """Write 40 training and 20 test images in MNIST's files; return them and their labels by part."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    written = {}
    for part, count in (("train", 40), ("t10k", 20)):
        images = torch.randint(0, 256, (count, 28, 28), generator=generator)
        labels = torch.arange(count) % 10
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)
        written[part] = images, labels
    return written


@pytest.mark.parametrize(("dataset", "folder"), [(MNIST, "MNIST"), (FashionMNIST, "FashionMNIST")])
def test_it_reads_what_was_written(tmp_path, dataset, folder):
    written = make(tmp_path, folder)
    check_dataset(dataset, root=tmp_path)
    data = dataset().load("", tmp_path)
    for split, part in ((data.train, "train"), (data.test, "t10k")):
        assert torch.equal(split.images.squeeze(1), written[part][0].to(torch.uint8))
        assert torch.equal(split.labels, written[part][1])
    # A mirrored digit is a different digit or none; a mirrored shirt is still a shirt.
    assert data.flip == (dataset is FashionMNIST)


def test_packed_files_are_read_too(tmp_path):
    written = make(tmp_path)
    for path in (tmp_path / "MNIST/raw").iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    data = MNIST().load("", tmp_path)
    assert torch.equal(data.test.images.squeeze(1), written["t10k"][0].to(torch.uint8))


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def emptied(path):
    path.write_bytes(b"")


def other_type(path):
    path.write_bytes(bytes((0, 0, 13, 3)) + path.read_bytes()[4:])


def packed_and_cut(path):
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()


def removed(path):
    path.unlink()


def labels_of_another(path):
    write_idx(path.with_name("train-labels-idx1-ubyte"), torch.zeros(3))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "should hold 31360 values but holds 31355"),
        (emptied, "not an idx file"),
        (other_type, "not an idx file"),
        (packed_and_cut, "cannot be read"),
        (removed, "there is no .*train-images-idx3-ubyte; unpack"),
        (labels_of_another, "40 images have 3 labels"),
    ],
)
def test_damaged_files(tmp_path, damage, message):
    make(tmp_path)
    damage(tmp_path / "MNIST/raw/train-images-idx3-ubyte")
    with pytest.raises(Error, match=rf"^mnist: [^\n]*{message}[^\n]*$"):
        open_data(DataOptions(data="mnist", data_dir=tmp_path))


def test_missing_files_tell_where_they_were_looked_for(tmp_path, monkeypatch):
    with pytest.raises(Error, match=rf"mnist: there is no {tmp_path}/MNIST/raw; .*--data-dir or KDTOOL_DATA"):
        open_data(DataOptions(data="mnist", data_dir=tmp_path))
    monkeypatch.delenv("KDTOOL_DATA", raising=False)
    with pytest.raises(Error, match="mnist: no data directory is set"):
        open_data(DataOptions(data="mnist"))
    with pytest.raises(UsageError, match="takes no argument"):
        MNIST().load("1", tmp_path)


def test_download_is_torchvisions(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.MNIST", lambda root, download: make(Path(root)))
    data = open_data(DataOptions(data="mnist", data_dir=tmp_path / "new", download=True))
    assert len(data.test) == 20


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def fail(root, download):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    with pytest.raises(Error, match=r"^mnist: cannot be downloaded \([^\n]*not known[^\n]*$"):
        open_data(DataOptions(data="mnist", data_dir=tmp_path, download=True))


@pytest.mark.skipif(
    not Path(os.environ.get("KDTOOL_DATA", ""), "MNIST/raw/train-images-idx3-ubyte").is_file(),
    reason="the real MNIST is not in KDTOOL_DATA",
)
def test_the_real_files():
    data = open_data(DataOptions(data="mnist", data_dir=Path(os.environ["KDTOOL_DATA"])))
    assert len(data.train) + len(data.val) == 60000
    assert torch.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The images have the published mean and standard deviation.
    mean, std = data.train.statistics()
    assert (mean[0], std[0]) == pytest.approx((0.1307, 0.3081), abs=1e-3)
